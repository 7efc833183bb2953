"""Which runs can be compared with which: controls, runs whose samples share their noise, and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluators.report.grades import grader_of
from evaluators.report.runs import Run
from evaluators.shifts.evolution import same_responses, steps

# A control matches a run of the same pair that was asked the same: engine.match.
_MATCHED = ("base", "rl", "ids_answers_and_prompts", "max_tokens")
# What the same sample of a problem must have in common in two runs for its noise to be the same.
_PAIRED = {"ids_answers_and_prompts": "problems, answers or prompts", "seed": "seed"}

_MEASURED = ("base", "temperature", "top_p", "top_k")


def controls(runs: Sequence[Run]) -> tuple[dict[str, str], list[str]]:
    """Name of a control -> name of the run that it is the control of, and a line for each that lacks its run.

    A control is a run of random positions that matches another, which it names by the path it had then: of the runs of
    the same pair and problems it is the one at this path, or else the one whose folder has this name.
    """
    found: dict[str, str] = {}
    notes: list[str] = []
    for control in filter(_matches, runs):
        match = Path(str(control.part("config")["match"]))
        alike = [run for run in runs if not _matches(run) and _same(run, control, _MATCHED)]
        here = [run for run in alike if run.path.resolve() == match.resolve()]
        named = here or [run for run in alike if run.path.resolve().name == match.name]
        if named:
            found[control.name] = named[0].name
        else:
            way_out = "give that run too to have them compared"
            notes.append(f"{control.name}: its positions are random and match the run {match}, not given: {way_out}")
    return found, notes


def compared_with(run: Run, runs: Sequence[Run], control_of: dict[str, str]) -> tuple[list[Run], list[str]]:
    """The runs whose arms are taken from those of `run`: its controls, and of the others those before it in `runs`.

    With a line for each reason why some of them cannot be paired. Scored responses are not compared: they are those of
    another run, or have no noise in common with any.
    """
    made = [other for other in runs if not (run.is_scored or other.is_scored)]
    before = runs[: runs.index(run)]
    asked = [
        other
        for other in made
        if control_of.get(other.name) == run.name or (other in before and control_of.get(run.name) != other.name)
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
        f"{run.name}: no paired differences with {', '.join(names)}: other {reason}" for reason, names in unlike.items()
    ]


def unpaired(run: Run, other: Run) -> str:
    """What keeps the samples of `run` and `other` from being pairs; empty where nothing does."""
    differing = [name for key, name in _PAIRED.items() if not _same(run, other, (key,))]
    if grader_of(run) != grader_of(other):
        differing.append("grader")
    return ", ".join(differing)


def checkpoints(runs: Sequence[Run]) -> list[Run]:
    """The most runs that measured the same responses in the same way, under two RL models at least, by their steps.

    Empty where there are none. Models without a step at the end of their name are left out where two have one; without
    steps the order is that of `runs`.
    """
    groups: list[list[Run]] = []
    for run in runs:
        alike = [group for group in groups if _measured_alike(group[0], run)]
        if alike:
            alike[0].append(run)
        else:
            groups.append([run])
    several = [group for group in groups if len({str(run.part("identity").get("rl")) for run in group}) > 1]
    chosen = max(several, key=len, default=[])
    with_step = [run for run in chosen if str(run.part("models").get("rl")).rstrip("/")[-1:].isdecimal()]
    chosen = with_step if len(with_step) > 1 else chosen
    order = steps([run.tables for run in chosen if run.tables])
    return [run for _, run in sorted(zip(order, chosen, strict=True), key=lambda pair: pair[0])]


def _measured_alike(run: Run, other: Run) -> bool:
    if run.tables is None or other.tables is None or not _same(run, other, _MEASURED):
        return False
    return same_responses(run.tables, other.tables)


def _matches(run: Run) -> bool:
    config = run.part("config")
    return config.get("criterion") == "random" and config.get("match") is not None


def _same(run: Run, other: Run, keys: Sequence[str]) -> bool:
    here, there = run.part("identity"), other.part("identity")
    return all(key in here and here[key] == there.get(key) for key in keys)
