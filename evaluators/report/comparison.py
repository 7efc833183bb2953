"""Which runs of a report can be compared with each other.

There are three kinds: controls, runs whose samples share their noise, and checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import XsampleError
from engine.run.match import fingerprint, read_match
from engine.store.manifest import expected_section
from engine.store.schema import expected_trajectories
from evaluators.report.runs import Run
from evaluators.shifts.evolution import same_responses, step_of

# A control matches a run of the same pair with the same prompts: engine.run.match.
_MATCHED = ("base", "rl", "ids_answers_and_prompts", "max_tokens")
# Where these are equal in two runs, the same sample of a problem has the same noise in both.
_PAIRED = {"ids_answers_and_prompts": "problems, answers or prompts", "seed": "seed"}
# Where these are equal, two runs measure js in the same way.
_MEASURED = ("base", "temperature", "top_p", "top_k")


def controls(runs: Sequence[Run]) -> tuple[dict[str, str], list[str]]:
    """Find the run that each control matches.

    A control intervenes at random positions, as often as the run that it matches. It keeps a
    fingerprint of that run's numbers of interventions, by which the run is recognised even if it
    was moved, and by which no other run of the same name is taken for it.

    Returns:
        The name of the matched run by the name of its control, and a note for each control whose
        run is not among `runs`.
    """
    matched_runs: dict[str, str] = {}
    notes: list[str] = []
    for control in filter(_matches, runs):
        candidates = (run for run in runs if not _matches(run) and _same(run, control, _MATCHED))
        matched = next((run for run in candidates if _is_matched(run, control)), None)
        if matched:
            matched_runs[control.name] = matched.name
        else:
            match = control.section("config")["match"]
            notes.append(
                f"{control.name}: its positions are random and match the run {match}, which is not"
                " given, or has changed since: give that run too to have them compared"
            )
    return matched_runs, notes


def compared_with(
    run: Run, runs: Sequence[Run], control_of: dict[str, str]
) -> tuple[list[Run], list[str]]:
    """The runs with which `run` is compared: its controls, and the other runs before it.

    Scored responses are not compared: they are those of another run, or share no noise with any.

    Args:
        run: The run.
        runs: All runs, in their order.
        control_of: The name of the matched run by the name of its control.

    Returns:
        The runs, and a note for each reason why some of them cannot be paired.
    """
    sampled = [other for other in runs if not (run.is_scored or other.is_scored)]
    before = runs[: runs.index(run)]
    candidates = [
        other
        for other in sampled
        if control_of.get(other.name) == run.name
        or (other in before and control_of.get(run.name) != other.name)
    ]
    paired: list[Run] = []
    unpaired: dict[str, list[str]] = {}
    for other in candidates:
        reason = differing_settings(run, other)
        if reason:
            unpaired.setdefault(reason, []).append(other.name)
        else:
            paired.append(other)
    return paired, [
        f"{run.name}: no paired differences with {', '.join(names)}: other {reason}"
        for reason, names in unpaired.items()
    ]


def differing_settings(run: Run, other: Run) -> str:
    """The settings that differ, so that samples of both runs are no pairs; empty if none does."""
    differing = [name for key, name in _PAIRED.items() if not _same(run, other, (key,))]
    if run.reader.graded_by != other.reader.graded_by:
        differing.append("grader")
    return ", ".join(differing)


def checkpoints(runs: Sequence[Run]) -> tuple[list[Run], list[str]]:
    """The largest group of runs that measured the same responses under several checkpoints.

    Returns:
        The runs in the order of their training steps, empty if there are not two steps. And a note
        for each run of the group that is left out because its model's name contains no step.
    """
    groups: list[list[Run]] = []
    for run in runs:
        matching = [group for group in groups if _measured_alike(group[0], run)]
        if matching:
            matching[0].append(run)
        else:
            groups.append([run])
    chosen = max(groups, key=lambda group: len(_steps(group)), default=[])
    steps = _steps(chosen)
    if len(set(steps.values())) < 2:
        return [], []
    no_step = "its RL model's name contains no step (as in global_step_100 or checkpoint-100)"
    notes = [
        f"{run.name}: {no_step}, so it is no part of the evolution"
        for run in chosen
        if run.name not in steps
    ]
    ordered = sorted((run for run in chosen if run.name in steps), key=lambda run: steps[run.name])
    return ordered, notes


def _steps(runs: Sequence[Run]) -> dict[str, int]:
    """The training step of each run whose model's name contains it."""
    return {run.name: step for run in runs if (step := step_of(run.manifest)) is not None}


def _is_matched(run: Run, control: Run) -> bool:
    """Whether `control` took its numbers of interventions from `run`."""
    identity = control.section("identity")
    try:
        expected = expected_trajectories(expected_section(control.manifest, control.path))
        return fingerprint(read_match(run.path, expected, identity)) == identity.get("matched")
    except XsampleError:  # the run lacks a trajectory, or someone has edited a manifest
        return False


def _measured_alike(run: Run, other: Run) -> bool:
    if run.tables is None or other.tables is None or not _same(run, other, _MEASURED):
        return False
    return same_responses(run.tables, other.tables)


def _matches(run: Run) -> bool:
    """Whether the run is a control."""
    config = run.section("config")
    return config.get("criterion") == "random" and config.get("match") is not None


def _same(run: Run, other: Run, keys: Sequence[str]) -> bool:
    ours, theirs = run.section("identity"), other.section("identity")
    return all(key in ours and ours[key] == theirs.get(key) for key in keys)
