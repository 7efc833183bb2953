"""The numbers of a run as JSON values: one row per arm, and one row per pair of arms.

An arm is a direction and a budget. Accuracy is avg@n: each problem weighs the same, `correct`
counts 1 and every other verdict 0. Means of interventions are per response; shares are of all
tokens of the arm. Intervals are over problems, at 95 %.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import combinations
from math import isnan
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.arrays import Bools, Floats
from engine.core import GraderName
from evaluators.grading.verdict import VERDICTS
from evaluators.scores.bootstrap import Estimate, estimate
from evaluators.scores.metrics import (
    PairedScores,
    Votes,
    avg_at_n,
    maj_at_k,
    paired_difference,
    pass_at_k,
    ratio,
)
from evaluators.scores.outcomes import Arm, Outcomes, read_outcomes

# With more arms than this, each is compared with its direction's lowest budget only, because the
# number of pairs grows with the square of the number of arms.
MAX_ARMS_IN_ALL_PAIRS = 24

_NOTHING: dict[str, float | None] = dict.fromkeys(Estimate._fields)

Key = TypeVar("Key", bound=Hashable)


def summarise(responses: pa.Table, grades: pa.Table, grader: GraderName = "math") -> dict[str, Any]:
    """Summarise graded responses.

    Args:
        responses: At least the columns TRAJECTORY_KEY and COUNTED.
        grades: The grade of each response.
        grader: How answers were compared, which decides which of them are one vote.

    Returns:
        `{"grader": ..., "arms": [row, ...], "differences": [row, ...], "total": {...}}`. A budget
        of None is unlimited.

    Raises:
        XsampleError: A grade is missing, or a trajectory occurs twice.
    """
    outcomes = read_outcomes(responses, grades, grader)
    total = {"problems": outcomes.num_problems, **_totals(outcomes, outcomes.everything)}
    return {
        "grader": grader,
        "arms": _arms(outcomes),
        "differences": differences(outcomes),
        "total": total,
    }


def summarise_ungraded(responses: pa.Table) -> dict[str, Any]:
    """Summarise responses without gold answers: no arms, and a total without verdicts."""
    total = {
        "problems": pc.count_distinct(responses["problem"]).as_py(),
        "responses": responses.num_rows,
        "tokens": _sum(responses["tokens"]),
        "interventions": _sum(responses["interventions"]),
        "effective": _sum(responses["effective_interventions"]),
        "truncated": _sum(pc.equal(responses["finish_reason"], "length")),
    }
    return {"grader": None, "arms": [], "differences": [], "total": total}


def _sum(column: pa.ChunkedArray) -> int:
    return pc.sum(column).as_py() or 0


def _arms(outcomes: Outcomes) -> list[dict[str, Any]]:
    votes = outcomes.votes()
    scores = {
        (arm, *metric): metric_scores
        for arm, arm_votes in enumerate(votes)
        for metric, metric_scores in _scores(arm_votes).items()
    }
    estimates = _estimates(scores)
    return [_arm(outcomes, arm, arm_votes, estimates) for arm, arm_votes in enumerate(votes)]


def _scores(votes: Votes) -> dict[tuple[str, int], Floats | None]:
    """The scores [P] of one arm by metric and k."""
    num_samples = votes.num_samples
    scores: dict[tuple[str, int], Floats | None] = {}
    for k in _sizes(votes):
        scores["pass", k] = pass_at_k(num_samples, votes.correct, k)
        scores["maj", k] = maj_at_k(votes, k)
    return scores | {("avg", k): avg_at_n(num_samples, votes.correct)}


def _sizes(votes: Votes) -> list[int]:
    """The k of pass@k and maj@k: powers of two up to the number n of samples, and n itself."""
    n = int(votes.num_samples.max())
    return sorted({n, *(1 << power for power in range(n.bit_length()))})


def _arm(
    outcomes: Outcomes,
    arm: int,
    votes: Votes,
    estimates: Mapping[tuple[int, str, int], Estimate | None],
) -> dict[str, Any]:
    sizes = _sizes(votes)
    accuracy = estimates[arm, "avg", sizes[-1]]
    assert accuracy is not None, "avg@n is known for any n"
    at_k = {
        name: {str(k): _values(estimates[arm, name, k]) for k in sizes} for name in ("pass", "maj")
    }
    return {
        **outcomes.arms[arm]._asdict(),
        "problems": len(votes.correct),
        "samples": sizes[-1],
        "responses": int(votes.num_samples.sum()),
        "accuracy": accuracy.value,
        "accuracy_low": _bound(accuracy.low),
        "accuracy_high": _bound(accuracy.high),
        "pass_at_k": at_k["pass"],
        "maj_at_k": at_k["maj"],
        **usage(outcomes, outcomes.arm == arm),
    }


def usage(outcomes: Outcomes, chosen: Bools) -> dict[str, Any]:
    """Means, shares and rates of the responses in the mask `chosen` [R]."""
    total = _totals(outcomes, chosen)
    verdicts, responses, tokens = total["verdicts"], total["responses"], total["tokens"]
    return {
        "interventions": ratio(total["interventions"], responses),
        "interventions_share": ratio(total["interventions"], tokens),
        "effective": ratio(total["effective"], responses),
        "effective_share": ratio(total["effective"], tokens),
        "tokens_mean": ratio(tokens, responses),
        "tokens_median": float(np.median(outcomes.tokens[chosen])),
        "no_answer_rate": ratio(verdicts["no_answer"], responses),
        "guessed_rate": ratio(verdicts["guessed"], responses),
        "truncated_rate": ratio(total["truncated"], responses),
        "verdicts": verdicts,
    }


def _totals(outcomes: Outcomes, chosen: Bools) -> dict[str, Any]:
    verdicts = np.bincount(outcomes.verdict[chosen], minlength=len(VERDICTS)).tolist()
    return {
        "responses": int(chosen.sum()),
        "tokens": int(outcomes.tokens[chosen].sum()),
        "interventions": int(outcomes.interventions[chosen].sum()),
        "effective": int(outcomes.effective[chosen].sum()),
        "truncated": int(outcomes.truncated[chosen].sum()),
        "verdicts": dict(zip(VERDICTS, verdicts, strict=True)),
    }


def differences(outcomes: Outcomes) -> list[dict[str, Any]]:
    """Paired differences of accuracy: one row for each arm and each arm before it.

    The accuracy of the earlier arm is subtracted, so the difference is that of the larger budget
    minus the smaller one, and of reverse minus forward.
    """
    arms = outcomes.arms
    answered = outcomes.per_sample(outcomes.everything)
    correct = outcomes.per_sample(outcomes.correct)
    pairs = list(combinations(range(len(arms)), 2))
    if len(arms) > MAX_ARMS_IN_ALL_PAIRS:
        pairs = [(low, arm) for low, arm in pairs if low == _lowest(arms, arm)]
    paired = {pair: paired_difference(answered[list(pair)], correct[list(pair)]) for pair in pairs}
    estimates = _estimates(
        {pair: common.scores if common.num_pairs else None for pair, common in paired.items()}
    )
    return [
        _difference(arms[arm], arms[low], paired[low, arm], estimates[low, arm])
        for low, arm in pairs
    ]


def _lowest(arms: tuple[Arm, ...], index: int) -> int:
    """Index of the arm with the lowest budget of the same direction."""
    return next(low for low, arm in enumerate(arms) if arm.direction == arms[index].direction)


def _difference(
    arm: Arm, against: Arm, paired: PairedScores, difference: Estimate | None
) -> dict[str, Any]:
    values = _values(difference) or _NOTHING
    return {
        **arm._asdict(),
        "against_direction": against.direction,
        "against_budget": against.budget,
        "problems": len(paired.scores),
        "pairs": paired.num_pairs,
        **dict(zip(("difference", "low", "high"), values.values(), strict=True)),
    }


def _estimates(scores: Mapping[Key, Floats | None]) -> dict[Key, Estimate | None]:
    """All intervals at once, on the same resamples; None where there are no scores."""
    known = {key: of_problems for key, of_problems in scores.items() if of_problems is not None}
    return dict.fromkeys(scores) | dict(zip(known, estimate(list(known.values())), strict=True))


def _values(mean: Estimate | None) -> dict[str, float | None] | None:
    return mean and {"value": mean.value, "low": _bound(mean.low), "high": _bound(mean.high)}


def _bound(end: float) -> float | None:
    return None if isnan(end) else end
