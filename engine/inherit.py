"""Settings of another run, for a run that is to be like it: read from its run.json as they were
given.

They lie beneath what the user gives (engine.settings.load). Imports nothing heavy until a run is
read.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from engine.config.run_config import RunConfig
from engine.errors import RunDirectoryError, StoreError

# What a control takes over from the run that it matches: all that decides or records the numbers,
# but not what is to differ (criterion, threshold), nor where and how fast it runs, nor leave to run
# a model's own code.
MATCHED = (
    "base", "rl", "task", "task_data", "question_column", "answer_column", "id_column", "prompt",
    "prompt_template", "grader", "limit", "samples", "direction", "budget", "window", "eos",
    "extrapolate", "extrapolate_to", "temperature", "top_p", "top_k", "max_tokens", "seed", "trace",
    "record_threshold", "record_top_k", "dtype",
)  # fmt: skip
_WAY_OUT = "give the --out folder of an `xsample run`"


def settings_of(run: Path, names: Iterable[str]) -> dict[str, Any]:
    """Those of `names` that the run directory `run` was made with; what was left out and has no
    value stays out.

    Raises RunDirectoryError where `run` is no run directory, or holds a value that RunConfig would
    not take.
    """
    stored = _stored_settings(run)
    settings = {name: stored[name] for name in names if stored.get(name) is not None}
    try:
        RunConfig(**settings)
    except ValidationError as error:
        # Without a place it is about settings that do not go together, and `names` may be a part of
        # them only.
        for wrong in (e for e in error.errors(include_url=False) if e["loc"]):
            name = wrong["loc"][0]
            raise RunDirectoryError(
                f"{run}/run.json: {name} is {wrong['input']!r:.200}, which no run has: {_WAY_OUT}"
            ) from None
    return settings


def _stored_settings(run: Path) -> dict[str, Any]:
    from engine.store.run_store import RunStore

    try:
        stored = RunStore.read(run).manifest.get("config")
    except StoreError as error:
        raise RunDirectoryError(f"{error}: {_WAY_OUT}") from None
    if not isinstance(stored, dict):
        raise RunDirectoryError(f"{run}/run.json holds no settings: {_WAY_OUT}")
    return stored
