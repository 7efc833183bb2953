"""Which runs can be compared with which: controls, runs whose samples share their noise, and
checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import XsampleError
from engine.run.match import fingerprint, read_match
from engine.store.manifest import expected_section
from engine.store.schema import expected_trajectories
from evaluators.report.grades import grader_of
from evaluators.report.runs import Run
from evaluators.shifts.evolution import same_responses, step_of

# A control matches a run of the same pair that was asked the same: engine.run.match.
_MATCHED = ("base", "rl", "ids_answers_and_prompts", "max_tokens")
# What the same sample of a problem must have in common in two runs for its noise to be the same.
_PAIRED = {"ids_answers_and_prompts": "problems, answers or prompts", "seed": "seed"}

_MEASURED = ("base", "temperature", "top_p", "top_k")


def controls(runs: Sequence[Run]) -> tuple[dict[str, str], list[str]]:
    """Name of a control -> name of the run that it is the control of, and a line for each that
    lacks its run.

    A control is a run of random positions that matches another. Whose numbers of interventions
    these are it keeps as a fingerprint: a run that was moved is known by it, and another of the
    same name is not taken for it.
    """
    found: dict[str, str] = {}
    notes: list[str] = []
    for control in filter(_matches, runs):
        alike = (run for run in runs if not _matches(run) and _same(run, control, _MATCHED))
        matched = next((run for run in alike if _is_matched(run, control)), None)
        if matched:
            found[control.name] = matched.name
        else:
            match = control.section("config")["match"]
            known = (
                f"its positions are random and match the run {match}, which is not given, or has"
                " changed since"
            )
            notes.append(f"{control.name}: {known}: give that run too to have them compared")
    return found, notes


def compared_with(
    run: Run, runs: Sequence[Run], control_of: dict[str, str]
) -> tuple[list[Run], list[str]]:
    """The runs whose arms are taken from those of `run`: its controls, and of the others those
    before it in `runs`.

    With a line for each reason why some of them cannot be paired. Scored responses are not
    compared: they are those of another run, or have no noise in common with any.
    """
    made = [other for other in runs if not (run.is_scored or other.is_scored)]
    before = runs[: runs.index(run)]
    asked = [
        other
        for other in made
        if control_of.get(other.name) == run.name
        or (other in before and control_of.get(run.name) != other.name)
    ]
    alike: list[Run] = []
    unlike: dict[str, list[str]] = {}
    for other in asked:
        reason = unpaired(run, other)
        if reason:
            unlike.setdefault(reason, []).append(other.name)
        else:
            alike.append(other)
    return alike, [
        f"{run.name}: no paired differences with {', '.join(names)}: other {reason}"
        for reason, names in unlike.items()
    ]


def unpaired(run: Run, other: Run) -> str:
    """What keeps the samples of `run` and `other` from being pairs; empty where nothing does."""
    differing = [name for key, name in _PAIRED.items() if not _same(run, other, (key,))]
    if grader_of(run) != grader_of(other):
        differing.append("grader")
    return ", ".join(differing)


def checkpoints(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The most runs that measured the same responses in the same way, under checkpoints of an RL
    model, by their steps.

    Empty where there are not two. With a line for each run of these responses that is left out, as
    its model's name says no step.
    """
    groups: list[list[Run]] = []
    for run in runs:
        alike = [group for group in groups if _measured_alike(group[0], run)]
        if alike:
            alike[0].append(run)
        else:
            groups.append([run])
    chosen = max(groups, key=lambda group: len(_steps(group)), default=[])
    at = _steps(chosen)
    if len(set(at.values())) < 2:
        return [], []
    named = "its RL model's name says no step (as global_step_100 or checkpoint-100 do)"
    notes = [
        f"{run.name}: {named}, so it is no part of the evolution"
        for run in chosen
        if run.name not in at
    ]
    return sorted((run for run in chosen if run.name in at), key=lambda run: at[run.name]), notes


def _steps(runs: Sequence[Run]) -> dict[str, int]:
    """Training step of each run whose model's name says it."""
    return {run.name: step for run in runs if (step := step_of(run.manifest)) is not None}


def _is_matched(run: Run, control: Run) -> bool:
    """Whether `control` has its numbers of interventions from `run`."""
    identity = control.section("identity")
    try:
        expected = expected_trajectories(expected_section(control.manifest, control.path))
        return fingerprint(read_match(run.path, expected, identity)) == identity.get("matched")
    except XsampleError:  # it lacks a trajectory, or someone has edited a manifest
        return False


def _measured_alike(run: Run, other: Run) -> bool:
    if run.tables is None or other.tables is None or not _same(run, other, _MEASURED):
        return False
    return same_responses(run.tables, other.tables)


def _matches(run: Run) -> bool:
    config = run.section("config")
    return config.get("criterion") == "random" and config.get("match") is not None


def _same(run: Run, other: Run, keys: Sequence[str]) -> bool:
    here, there = run.section("identity"), other.section("identity")
    return all(key in here and here[key] == there.get(key) for key in keys)
