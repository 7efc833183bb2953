"""The run that a control matches: how often each of its trajectories was intervened on, and how long it became."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import ConfigError
from engine.record import TRAJECTORY_KEY, Trajectory
from engine.store import RunStore

# What must be the same for a trajectory here to have its like there.
_COMPARED = {
    "base": "base model",
    "rl": "rl model",
    "ids_answers_and_prompts": "problems, answers or prompts (another limit, too, makes them others)",
    "max_tokens": "max_tokens",
}


class Matched(NamedTuple):
    """Of the trajectory of the same key in the matched run: tokens is its length."""

    interventions: int
    tokens: int


def read_match(run: Path, trajectories: Iterable[Trajectory], identity: Mapping[str, Any]) -> dict[Trajectory, Matched]:
    """What `run` did in each of `trajectories`; `identity` is that of the run that is to match it.

    Raises ConfigError where `run` has other models, problems or prompts, or lacks a trajectory; RunDirectoryError where
    it is no run directory.
    """
    store = RunStore.read(run)
    there = store.manifest.get("identity")
    _refuse_difference(run, there if isinstance(there, dict) else {}, identity)
    columns = store.responses([*TRAJECTORY_KEY, *Matched._fields]).to_pydict()
    keys = map(Trajectory, *(columns[name] for name in TRAJECTORY_KEY))
    matched = dict(zip(keys, map(Matched, *(columns[name] for name in Matched._fields)), strict=True))
    wanted = list(trajectories)
    missing = [key for key in wanted if key not in matched]
    if missing:
        raise ConfigError(
            f"match is {str(run)!r}, which lacks {len(missing):,} of {len(wanted):,} trajectories, the first: "
            f"{missing[0]}; give direction, budget and samples as that run (left out, they are taken from it), "
            "or complete it"
        )
    return {key: matched[key] for key in wanted}


def _refuse_difference(run: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    differing = [
        f"{name} ({there.get(key)!r} there, {here.get(key)!r} here)"
        for key, name in _COMPARED.items()
        if there.get(key) != here.get(key)
    ]
    if differing:
        raise ConfigError(
            f"match is {str(run)!r}, a run with other {', other '.join(differing)}: give models, task, prompt, limit "
            "and max_tokens as that run (left out, they are taken from it), or another match"
        )
