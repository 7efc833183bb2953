"""The run that a control matches: the number of interventions in each of its trajectories.

A control draws its positions over its own response, not over that of the matched run. RL tokens
make a base response longer and base tokens make an RL response shorter, so positions of one
response would be crowded in the other, or lie beyond its end. The best estimate of the length of a
control's response is the plain response of the primary, which random interventions change little.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from engine.core import TRAJECTORY_KEY, Trajectory
from engine.errors import ConfigError
from engine.store.manifest import digest_rows, is_scored, section
from engine.store.run_reader import read_run

# What two runs must have in common for their trajectories to correspond, and its name in messages.
_COMPARED = {
    "base": "base model",
    "rl": "rl model",
    "ids_answers_and_prompts": (
        "problems, answers or prompts (another limit, too, makes them others)"
    ),
    "max_tokens": "max_tokens",
}


class Matched(NamedTuple):
    """What the matched run did in the trajectory with the same key."""

    interventions: int
    """How often it intervened."""
    position_limit: int | None
    """Tokens of the primary's plain response (budget 0) to the same noise; None if it has none."""


def read_match(
    run: Path, trajectories: Iterable[Trajectory], identity: Mapping[str, Any]
) -> dict[Trajectory, Matched]:
    """Read what a run did in each trajectory of a control.

    Args:
        run: The directory of the matched run.
        trajectories: The trajectories of the control.
        identity: The identity of the control, as in run.json.

    Raises:
        ConfigError: The runs differ in models, problems or prompts, or `run` lacks a trajectory.
        RunDirectoryError: `run` is no run directory.
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
    plain_lengths = {
        key: tokens for key, tokens in zip(keys, rows["tokens"], strict=True) if key.budget == 0
    }
    control_keys = list(trajectories)
    missing = [key for key in control_keys if key not in interventions]
    if missing:
        raise ConfigError(
            f"match is {str(run)!r}, which lacks {len(missing):,} of {len(control_keys):,}"
            f" trajectories, the first: {missing[0]}; give direction, budget and samples as that"
            " run (left out, they are taken from it), or complete it"
        )
    return {
        key: Matched(interventions[key], plain_lengths.get(key._replace(budget=0)))
        for key in control_keys
    }


def fingerprint(matched: Mapping[Trajectory, Matched]) -> str:
    """The digest of a matched run's counts, which the identity of a control contains."""
    return digest_rows((*map(str, key), *counts) for key, counts in matched.items())


def check_num_positions(
    run: Path, matched: Mapping[Trajectory, Matched], window: str | None, start: int, stop: int
) -> None:
    """Check that the window of a control has a position for every intervention of a trajectory.

    Args:
        run: The directory of the matched run, for the message.
        matched: What that run did in each trajectory.
        window: The setting, for the message.
        start: The first position of the window.
        stop: The position after its last.

    Raises:
        ConfigError: A trajectory has more interventions than the window has positions.
    """
    key = max(matched, key=lambda key: matched[key].interventions)
    num_interventions = matched[key].interventions
    if num_interventions > stop - start:
        raise ConfigError(
            f"match is {str(run)!r}, where {key} has {num_interventions} interventions,"
            f" and window is {window!r}, which holds {stop - start} positions: give a wider window,"
            " or the one of that run"
        )


def _refuse_difference(run: Path, matched: Mapping[str, Any], control: Mapping[str, Any]) -> None:
    """Compare the identities of the two runs."""
    differing = [
        f"{name} ({matched.get(key)!r:.200} there, {control.get(key)!r:.200} here)"
        for key, name in _COMPARED.items()
        if matched.get(key) != control.get(key)
    ]
    if differing:
        raise ConfigError(
            f"match is {str(run)!r}, a run with other {', other '.join(differing)}: give models,"
            " task, prompt, limit and max_tokens as that run (left out, they are taken from it),"
            " or another match"
        )
