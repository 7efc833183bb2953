"""Errors of Ray and of its actors as errors of the project's tree: the cause's words, one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from engine.errors import EngineError, LostEngineError, first_line

_LESS_MEMORY = "give a smaller --kv-cache-gib, --max-num-seqs or --max-num-batched-tokens"


@contextmanager
def engine_errors(logs: Path | None) -> Iterator[None]:
    """Inside the block an error of Ray or of a worker becomes an EngineError.

    Args:
        logs: The folder where more is said about the error, for the message.
    """
    try:
        yield
    except Exception as error:
        # A plain Exception is a placement group's, whose cluster has died.
        if not isinstance(error, ray.exceptions.RayError) and type(error) is not Exception:
            raise
        raise _as_engine_error(error, f"; its logs are in {logs}" if logs else "") from None


def _as_engine_error(error: Exception, logs: str) -> EngineError:
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, EngineError):
        return type(cause)(str(cause))
    no_memory = isinstance(cause, MemoryError | ray.exceptions.OutOfMemoryError)
    if no_memory or "out of memory" in str(cause).lower():
        return LostEngineError(
            f"an engine ran out of memory: {first_line(cause)}; {_LESS_MEMORY}{logs}"
        )
    if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
        return LostEngineError(f"an engine's process died: {first_line(error)}{logs}")
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return LostEngineError(f"an engine did not answer in time{logs}")
    kind, message = type(cause).__name__, first_line(cause)
    what = kind if message == kind else f"{kind}: {message}"
    return EngineError(f"an engine failed: {what}{logs}")
