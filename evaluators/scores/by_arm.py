"""Accuracy of the arms of a run, and paired differences between arms of one run or of two. Pure:
tables in, tables out.

Accuracy is avg@n: each problem weighs the same, and every verdict other than correct counts 0.
Intervals are over problems, at 95 % (evaluators.scores.bootstrap). A control is a run of random
positions that matches another (engine.run.match).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.arrays import Ints
from engine.core import GraderName
from evaluators.scores.bootstrap import Estimate, estimate
from evaluators.scores.metrics import Paired, avg_at_n, paired_difference
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
class Graded:
    """The graded responses of a run. problems, samples: what the numbers of `outcomes` stand
    for.
    """

    name: str
    outcomes: Outcomes
    problems: tuple[str, ...]
    samples: tuple[int, ...]

    @classmethod
    def of(cls, name: str, responses: pa.Table, grades: pa.Table, grader: GraderName) -> Graded:
        """Of responses that all have a grade; the columns that
        `evaluators.scores.outcomes.read_outcomes` needs.

        Raises XsampleError if a grade is missing or a trajectory is there twice.
        """
        problems, samples = (
            tuple(sorted(pc.unique(responses[name]).to_pylist())) for name in ("problem", "sample")
        )
        return cls(name, read_outcomes(responses, grades, grader), problems, samples)


def accuracy_by_budget(graded: Graded, control: bool = False, given: bool = False) -> pa.Table:
    """A row of ACCURACY an arm; budget null is unlimited.

    accuracy with its interval (null for one problem) and shares of all tokens of the arm: 0 ... 1;
    interventions, effective (interventions that changed the token) and tokens_mean: tokens, means
    over responses. Figure 1 and table 1 of arXiv 2603.22446. `control` says that these arms are
    some other run's control, `given` that the responses were made elsewhere and are only measured:
    their accuracy is not that of the run's policies.
    """
    outcomes = graded.outcomes
    num_samples, correct = (
        outcomes.per_problem(outcomes.everything),
        outcomes.per_problem(outcomes.correct),
    )
    asked = num_samples > 0
    scores = [
        avg_at_n(n[there], c[there])
        for n, c, there in zip(num_samples, correct, asked, strict=True)
    ]
    rows = [
        {
            **arm._asdict(),
            "control": control,
            "given": given,
            "problems": int(asked[place].sum()),
            "samples": int(num_samples[place].max()),
            "accuracy": found.value,
            **_interval(found),
            "responses": int(num_samples[place].sum()),
            **usage(outcomes, outcomes.arm == place),
        }
        for place, (arm, found) in enumerate(zip(outcomes.arms, estimate(scores), strict=True))
    ]
    return pa.Table.from_pylist(rows, ACCURACY)


def accuracy_differences(graded: Graded, against: Sequence[Graded] = ()) -> pa.Table:
    """Rows of DIFFERENCES: each arm less those before it in the run, then less the same arm of each
    run of `against`.

    Only problems and samples that both have count, as these have the same noise:
    evaluators.scores.metrics.paired_difference. difference: of accuracies, -1 ... 1, null where
    nothing is in common.
    """
    within = [{"against_run": graded.name, **row} for row in differences(graded.outcomes)]
    between = [row for other in against for row in _between(graded, other)]
    return pa.Table.from_pylist(within + between, DIFFERENCES)


def _between(graded: Graded, other: Graded) -> list[dict[str, Any]]:
    here, there = _aligned(graded, other)
    arms = [arm for arm in here.arms if arm in there.arms]
    paired = _paired(here, there, [(here.arms.index(arm), there.arms.index(arm)) for arm in arms])
    estimates = iter(estimate([found.scores for found in paired if found.num_pairs]))
    return [
        {
            **arm._asdict(),
            **{
                f"against_{name}": value
                for name, value in [("run", other.name), *arm._asdict().items()]
            },
            "problems": len(found.scores),
            "pairs": found.num_pairs,
            **(_difference(next(estimates)) if found.num_pairs else {}),
        }
        for arm, found in zip(arms, paired, strict=True)
    ]


def _paired(here: Outcomes, there: Outcomes, places: Sequence[tuple[int, int]]) -> list[Paired]:
    """The differences here - there of the arms at `places`; samples beyond those of the other run
    pair with nothing.
    """
    cubes = [
        (outcomes.per_sample(outcomes.everything), outcomes.per_sample(outcomes.correct))
        for outcomes in (there, here)
    ]
    num_samples = min(answered.shape[2] for answered, _ in cubes)
    return [
        paired_difference(
            *(
                np.stack(
                    [
                        of_run[kind][arm, :, :num_samples]
                        for of_run, arm in zip(cubes, (old, new), strict=True)
                    ]
                )
                for kind in (0, 1)
            )
        )
        for new, old in places
    ]


def _aligned(first: Graded, second: Graded) -> list[Outcomes]:
    """The outcomes of both with the same numbers for the same problems and samples."""
    problems = sorted({*first.problems, *second.problems})
    samples = sorted({*first.samples, *second.samples})
    return [
        replace(
            graded.outcomes,
            num_problems=len(problems),
            problem=_places(graded.problems, problems)[graded.outcomes.problem],
            sample=_places(graded.samples, samples)[graded.outcomes.sample],
        )
        for graded in (first, second)
    ]


def _places(values: Iterable[Any], among: Iterable[Any]) -> Ints:
    places = {value: place for place, value in enumerate(among)}
    return np.array([places[value] for value in values], dtype=np.int64)


def _difference(found: Estimate) -> dict[str, float | None]:
    return {"difference": found.value, **_interval(found)}


def _interval(found: Estimate) -> dict[str, float | None]:
    return {
        name: None if isnan(bound) else bound
        for name, bound in (("low", found.low), ("high", found.high))
    }
