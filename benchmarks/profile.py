"""A worker with a stopwatch: the project's own, whose step is timed by part while the stopwatch is on.

Off, nothing is wrapped. On, the parts that `sampler` calls are wrapped where it finds them; the sums are wall time, so
the exchange includes waiting for the twin. On a GPU a part is charged with what it waits for: `nuclei`, the first that
fetches anything, with the forward pass.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from engine.worker import PolicyWorker

# Part -> where the sampler (or vLLM's engine) finds it.
_PARTS = ("log_probabilities", "nuclei", "exchange", "couple", "fires", "decide", "measure")


class ProfilingWorker(PolicyWorker):
    """PolicyWorker, and the time that each part of a step takes."""

    def start_profile(self) -> None:
        """Wrap the parts."""
        from engine import sampler, vllm_plugin

        self._seconds: dict[str, float] = defaultdict(float)
        self._calls: dict[str, int] = defaultdict(int)
        cross = vllm_plugin._the_sampler()
        self._undo: list[Callable[[], None]] = []
        for part in _PARTS:
            self._wrap(sampler, part, part)
        self._wrap(cross, "step", "sampler")
        self._wrap(cross.trace, "append", "trace")
        self._wrap(self._engine, "step", "engine")

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        plain = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                self._seconds[part] += time.perf_counter() - began
                self._calls[part] += 1

        setattr(owner, name, timed)
        self._undo.append(lambda: setattr(owner, name, plain))

    def stop_profile(self) -> tuple[int, dict[str, float]]:
        """Unwrap; steps, and microseconds of one by part. `force_and_rest`: the sampler's remainder, `vllm`: the rest.

        Parts that were never called, as in a solo phase, are left out.
        """
        for undo in self._undo:
            undo()
        steps = self._calls["engine"]
        part = {name: 1e6 * seconds / steps for name, seconds in self._seconds.items()}
        parts = [name for name in (*_PARTS, "trace") if name in part]
        inner = sum(part[name] for name in parts)
        return steps, {name: round(part[name], 1) for name in parts} | {
            "force_and_rest": round(part["sampler"] - inner, 1),
            "vllm": round(part["engine"] - part["sampler"], 1),
            "step": round(part["engine"], 1),
        }
