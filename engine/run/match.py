"""The run that a control matches: how often each of its trajectories was intervened on.

A control draws its positions over its own response, not over the matched one: RL tokens make a base
response longer and base tokens an RL response shorter, so that positions of the one would be
crowded, or missing, in the other. How long the control's will be is best known from the primary's
plain response, which it changes little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.core import TRAJECTORY_KEY, Trajectory
from engine.errors import ConfigError
from engine.store.manifest import digest_rows, is_scored, section
from engine.store.run_reader import read_run

# What must be the same for a trajectory here to have its like there.
_COMPARED = {
    "base": "base model",
    "rl": "rl model",
    "ids_answers_and_prompts": (
        "problems, answers or prompts (another limit, too, makes them others)"
    ),
    "max_tokens": "max_tokens",
}


class Matched(NamedTuple):
    """interventions: of the trajectory of the same key in the matched run. span: tokens of the
    primary's plain response to the same noise (budget 0); None where the matched run has none.
    """

    interventions: int
    position_limit: int | None


def read_match(
    run: Path, trajectories: Iterable[Trajectory], identity: Mapping[str, Any]
) -> dict[Trajectory, Matched]:
    """What `run` did in each of `trajectories`; `identity` is that of the run that is to match it.

    Raises ConfigError where `run` has other models, problems or prompts, or lacks a trajectory;
    RunDirectoryError where it is no run directory.
    """
    store = read_run(run)
    if is_scored(store.manifest):
        raise ConfigError(
            f"match is {str(run)!r}, which `xsample score` made: give the --out folder of an"
            " `xsample run`"
        )
    _refuse_difference(run, section(store.manifest, "identity"), identity)
    rows = store.responses([*TRAJECTORY_KEY, "interventions", "tokens"]).to_pydict()
    keys = list(map(Trajectory, *(rows[name] for name in TRAJECTORY_KEY)))
    interventions = dict(zip(keys, rows["interventions"], strict=True))
    plain = {
        key: tokens for key, tokens in zip(keys, rows["tokens"], strict=True) if key.budget == 0
    }
    wanted = list(trajectories)
    missing = [key for key in wanted if key not in interventions]
    if missing:
        raise ConfigError(
            f"match is {str(run)!r}, which lacks {len(missing):,} of {len(wanted):,} trajectories,"
            f" the first: {missing[0]}; give direction, budget and samples as that run (left out,"
            " they are taken from it), or complete it"
        )
    return {key: Matched(interventions[key], plain.get(key._replace(budget=0))) for key in wanted}


def fingerprint(matched: Mapping[Trajectory, Matched]) -> str:
    """What the identity of a control keeps of the run that it matches."""
    return digest_rows((*map(str, key), *counts) for key, counts in matched.items())


def check_room(
    run: Path, matched: Mapping[Trajectory, Matched], window: str | None, start: int, stop: int
) -> None:
    """Raise ConfigError where a trajectory has more interventions than the window start ... stop -
    1 has positions.
    """
    most = max(matched, key=lambda key: matched[key].interventions)
    if matched[most].interventions > stop - start:
        raise ConfigError(
            f"match is {str(run)!r}, where {most} has {matched[most].interventions} interventions,"
            f" and window is {window!r}, which holds {stop - start} positions: give a wider window,"
            " or the one of that run"
        )


def _refuse_difference(run: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    differing = [
        f"{name} ({there.get(key)!r:.200} there, {here.get(key)!r:.200} here)"
        for key, name in _COMPARED.items()
        if there.get(key) != here.get(key)
    ]
    if differing:
        raise ConfigError(
            f"match is {str(run)!r}, a run with other {', other '.join(differing)}: give models,"
            " task, prompt, limit and max_tokens as that run (left out, they are taken from it),"
            " or another match"
        )
