"""Accuracy of the arms of a run, and paired differences between arms of one run or of two.

Pure functions, tables in and tables out. Accuracy is avg@n: each problem weighs the same, and every
verdict other than correct counts 0. Intervals are over problems, at 95 %
(evaluators.scores.bootstrap). A control is a run that intervenes at random positions, as often as
the run that it matches (engine.run.match).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.arrays import Bools, Ints
from engine.core import GraderName
from evaluators.scores.bootstrap import Estimate, estimate
from evaluators.scores.metrics import PairedScores, avg_at_n, paired_difference
from evaluators.scores.outcomes import Outcomes, read_outcomes
from evaluators.scores.summary import differences, usage

_ARM = [("direction", pa.string()), ("budget", pa.int32())]
_INTERVAL = [("low", pa.float64()), ("high", pa.float64())]
_USAGE = ("interventions", "interventions_share", "effective", "effective_share", "tokens_mean")
ACCURACY = pa.schema(
    [
        *_ARM,
        ("control", pa.bool_()),
        ("given", pa.bool_()),
        *((name, pa.int64()) for name in ("problems", "samples", "responses")),
        ("accuracy", pa.float64()),
        *_INTERVAL,
        *((name, pa.float64()) for name in _USAGE),
    ]
)
DIFFERENCES = pa.schema(
    [
        *_ARM,
        *((f"against_{name}", type_) for name, type_ in [("run", pa.string()), *_ARM]),
        *((name, pa.int64()) for name in ("problems", "pairs")),
        ("difference", pa.float64()),
        *_INTERVAL,
    ]
)


@dataclass(frozen=True, slots=True)
class GradedRun:
    """The graded responses of a run."""

    name: str
    outcomes: Outcomes
    problems: tuple[str, ...]
    """The id of each problem index of `outcomes`."""
    samples: tuple[int, ...]
    """The sample number of each sample index of `outcomes`."""

    @classmethod
    def of(cls, name: str, responses: pa.Table, grades: pa.Table, grader: GraderName) -> GradedRun:
        """Join responses with their grades.

        Args:
            name: The name of the run.
            responses: The columns that `evaluators.scores.outcomes.read_outcomes` needs.
            grades: A grade for each response.
            grader: How answers were compared.

        Raises:
            XsampleError: A grade is missing, or a trajectory occurs twice.
        """
        problems, samples = (
            tuple(sorted(pc.unique(responses[name]).to_pylist())) for name in ("problem", "sample")
        )
        return cls(name, read_outcomes(responses, grades, grader), problems, samples)


def accuracy_by_budget(graded: GradedRun, control: bool = False, given: bool = False) -> pa.Table:
    """The accuracy and the interventions of each arm: figure 1 and table 1 of arXiv 2603.22446.

    Args:
        graded: The graded responses of a run.
        control: Whether the run is the control of another run.
        given: Whether the responses were sampled elsewhere and only scored here, so that their
            accuracy is not that of the run's policies.

    Returns:
        One row of ACCURACY per arm. A null budget is unlimited. Accuracy, its interval (null for a
        single problem) and shares of the tokens of the arm are 0 to 1. Interventions, effective
        ones (which changed the token) and `tokens_mean` are means over responses, in tokens.
    """
    outcomes = graded.outcomes
    num_samples = outcomes.per_problem(outcomes.everything)
    num_correct = outcomes.per_problem(outcomes.correct)
    asked = num_samples > 0
    scores = [
        avg_at_n(n[mask], c[mask])
        for n, c, mask in zip(num_samples, num_correct, asked, strict=True)
    ]
    rows = [
        {
            **arm._asdict(),
            "control": control,
            "given": given,
            "problems": int(asked[index].sum()),
            "samples": int(num_samples[index].max()),
            "accuracy": accuracy.value,
            **_interval(accuracy),
            "responses": int(num_samples[index].sum()),
            **usage(outcomes, outcomes.arm == index),
        }
        for index, (arm, accuracy) in enumerate(zip(outcomes.arms, estimate(scores), strict=True))
    ]
    return pa.Table.from_pylist(rows, ACCURACY)


def accuracy_differences(graded: GradedRun, against: Sequence[GradedRun] = ()) -> pa.Table:
    """Paired differences of accuracy between the arms of a run, and to the arms of other runs.

    Only the problems and samples that both arms have count, as these have the same noise
    (evaluators.scores.metrics.paired_difference).

    Args:
        graded: The graded responses of a run.
        against: The runs with which it is compared.

    Returns:
        Rows of DIFFERENCES: first each arm minus each arm before it in the run, then each arm minus
        the same arm of each run of `against`. A difference is -1 to 1; it is null where the arms
        have no sample in common.
    """
    within = [{"against_run": graded.name, **row} for row in differences(graded.outcomes)]
    between = [row for other in against for row in _between(graded, other)]
    return pa.Table.from_pylist(within + between, DIFFERENCES)


def _between(graded: GradedRun, other: GradedRun) -> list[dict[str, Any]]:
    """Each arm of `graded` minus the same arm of `other`."""
    ours, theirs = _align(graded, other)
    arms = [arm for arm in ours.arms if arm in theirs.arms]
    pairs = [(ours.arms.index(arm), theirs.arms.index(arm)) for arm in arms]
    paired = _paired_differences(ours, theirs, pairs)
    estimates = iter(estimate([common.scores for common in paired if common.num_pairs]))
    return [
        {
            **arm._asdict(),
            **{
                f"against_{name}": value
                for name, value in [("run", other.name), *arm._asdict().items()]
            },
            "problems": len(common.scores),
            "pairs": common.num_pairs,
            **(_difference(next(estimates)) if common.num_pairs else {}),
        }
        for arm, common in zip(arms, paired, strict=True)
    ]


def _paired_differences(
    ours: Outcomes, theirs: Outcomes, pairs: Sequence[tuple[int, int]]
) -> list[PairedScores]:
    """The differences ours - theirs, for each pair of an arm of ours and an arm of theirs.

    Samples beyond those of the other run pair with nothing.
    """
    our_cubes, their_cubes = _cubes(ours), _cubes(theirs)
    num_samples = min(cubes[0].shape[2] for cubes in (our_cubes, their_cubes))
    differences_of_arms = []
    for our_arm, their_arm in pairs:
        answered, correct = (
            np.stack([their_cube[their_arm, :, :num_samples], our_cube[our_arm, :, :num_samples]])
            for their_cube, our_cube in zip(their_cubes, our_cubes, strict=True)
        )
        differences_of_arms.append(paired_difference(answered, correct))
    return differences_of_arms


def _cubes(outcomes: Outcomes) -> tuple[Bools, Bools]:
    """Which samples have a response, and which are correct: [A, P, S] each."""
    return outcomes.per_sample(outcomes.everything), outcomes.per_sample(outcomes.correct)


def _align(first: GradedRun, second: GradedRun) -> list[Outcomes]:
    """The outcomes of both runs, with the same index for the same problem and sample."""
    problems = sorted({*first.problems, *second.problems})
    samples = sorted({*first.samples, *second.samples})
    return [
        replace(
            graded.outcomes,
            num_problems=len(problems),
            problem=_indices(graded.problems, problems)[graded.outcomes.problem],
            sample=_indices(graded.samples, samples)[graded.outcomes.sample],
        )
        for graded in (first, second)
    ]


def _indices(values: Iterable[Any], among: Iterable[Any]) -> Ints:
    index = {value: position for position, value in enumerate(among)}
    return np.array([index[value] for value in values], dtype=np.int64)


def _difference(mean: Estimate) -> dict[str, float | None]:
    return {"difference": mean.value, **_interval(mean)}


def _interval(mean: Estimate) -> dict[str, float | None]:
    return {
        name: None if isnan(bound) else bound
        for name, bound in (("low", mean.low), ("high", mean.high))
    }
