"""Responses joined with their grades, as arrays of indices.

R responses, A arms, P problems in the order of their ids, S samples, J classes of equal wrong
answers. An arm is a direction and a budget; arms are ordered by direction (forward, reverse, given)
and then by rising budget, unlimited last. A response without a grade is an error and never left
out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.arrays import Bools, Ints
from engine.core import (
    ALL_DIRECTIONS,
    TRAJECTORY_KEY,
    UNLIMITED_CODE,
    GraderName,
    budget_order,
)
from engine.errors import XsampleError
from evaluators.grading.verdict import VERDICTS
from evaluators.scores.answers import canonical_text
from evaluators.scores.metrics import Votes

COUNTED = ["tokens", "finish_reason", "interventions", "effective_interventions"]
_GRADED = ["verdict", "answer"]
_SILENT = [index for index, verdict in enumerate(VERDICTS) if verdict in ("no_answer", "guessed")]
# An arm is encoded as direction * _FACTOR + budget, in which _UNLIMITED lies above every budget.
_FACTOR = 1 << 33
_UNLIMITED = _FACTOR - 1


class Arm(NamedTuple):
    """The responses of a run with the same direction and budget."""

    direction: str
    budget: int | None
    """Maximum number of interventions per response; None is unlimited."""

    @property
    def sort_key(self) -> tuple[int, float]:
        """The key by which arms are ordered."""
        return ALL_DIRECTIONS.index(self.direction), budget_order(self.budget)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """R graded responses as arrays [R]."""

    arms: tuple[Arm, ...]
    num_problems: int
    arm: Ints
    """Index in `arms`."""
    problem: Ints
    """Index of the problem, below `num_problems`."""
    sample: Ints
    """Index of the sample of the problem."""
    verdict: Ints
    """Index in VERDICTS."""
    answer: Ints
    """Index of the answer; answers with the same canonical text share one."""
    tokens: Ints
    """Length of the response."""
    interventions: Ints
    effective: Ints
    """Interventions that changed the token."""
    truncated: Bools
    """Whether the response was cut off at its maximum length."""

    @property
    def everything(self) -> Bools:
        """The mask [R] of all responses."""
        return np.ones(len(self.arm), dtype=np.bool_)

    @property
    def correct(self) -> Bools:
        """The mask [R] of the correct responses."""
        return np.asarray(self.verdict == VERDICTS.index("correct"))

    def per_problem(self, chosen: Bools) -> Ints:
        """Number of responses [A, P] in the mask `chosen` [R]."""
        shape = (len(self.arms), self.num_problems)
        return np.bincount(self._cell[chosen], minlength=shape[0] * shape[1]).reshape(shape)

    def per_sample(self, chosen: Bools) -> Bools:
        """Whether each sample [A, P, S] has a response in the mask `chosen` [R]."""
        cube = np.zeros(
            (len(self.arms), self.num_problems, int(self.sample.max(initial=-1)) + 1),
            dtype=np.bool_,
        )
        cube[self.arm[chosen], self.problem[chosen], self.sample[chosen]] = True
        return cube

    def votes(self) -> list[Votes]:
        """The votes of each arm, over the problems to which it has responses."""
        silent = np.isin(self.verdict, _SILENT)
        correct, wrong = (
            self.per_problem(self.correct),
            self._wrong_classes(~silent & ~self.correct),
        )
        arms = [
            Votes(*counts) for counts in zip(correct, wrong, self.per_problem(silent), strict=True)
        ]
        return [Votes(*(counts[votes.num_samples > 0] for counts in votes)) for votes in arms]

    def _wrong_classes(self, wrong: Bools) -> Ints:
        """Sizes [A, P, J] of the classes of equal answers among `wrong` [R], largest first."""
        num_answers = int(self.answer.max(initial=0)) + 1
        classes, sizes = np.unique(
            self._cell[wrong] * num_answers + self.answer[wrong], return_counts=True
        )
        cell = classes // num_answers
        order = np.lexsort((-sizes, cell))
        cell, sizes = cell[order], sizes[order]
        rank = np.arange(len(cell)) - np.searchsorted(cell, cell)
        table = np.zeros(
            (len(self.arms) * self.num_problems, int(rank.max(initial=-1)) + 1), dtype=np.int64
        )
        table[cell, rank] = sizes
        return table.reshape(len(self.arms), self.num_problems, table.shape[1])

    @property
    def _cell(self) -> Ints:
        """Index of the arm and the problem together [R]."""
        return np.asarray(self.arm * self.num_problems + self.problem)


def read_outcomes(responses: pa.Table, grades: pa.Table, grader: GraderName = "math") -> Outcomes:
    """Join the responses of a run with their grades.

    Args:
        responses: At least the columns TRAJECTORY_KEY and COUNTED.
        grades: At least the columns TRAJECTORY_KEY, `verdict` and `answer`.
        grader: How answers were compared, which decides which of them are equal.

    Raises:
        XsampleError: A grade is missing, a trajectory occurs twice, or a value is none that a run
            writes.
    """
    rows = _join(
        prepare_join(responses.select([*TRAJECTORY_KEY, *COUNTED])),
        prepare_join(grades.select([*TRAJECTORY_KEY, *_GRADED])),
    )
    arms, arm = _index_arms(rows)
    problems, problem = _index_texts(rows["problem"])
    return Outcomes(
        arms=arms,
        num_problems=len(problems),
        arm=arm,
        problem=problem,
        sample=np.unique(_numbers(rows["sample"]), return_inverse=True)[1],
        verdict=_index_among(rows["verdict"], VERDICTS),
        answer=_index_answers(rows["answer"], grader),
        tokens=_numbers(rows["tokens"]),
        interventions=_numbers(rows["interventions"]),
        effective=_numbers(rows["effective_interventions"]),
        truncated=pc.equal(rows["finish_reason"], "length").to_numpy(),
    )


def prepare_join(table: pa.Table) -> pa.Table:
    """The table with UNLIMITED_CODE for an unlimited budget, because a join matches no nulls.

    Raises:
        XsampleError: A trajectory occurs more than once.
    """
    place = table.schema.get_field_index("budget")
    table = table.set_column(place, "budget", pc.fill_null(table["budget"], UNLIMITED_CODE))
    counted = table.group_by(TRAJECTORY_KEY).aggregate([([], "count_all")])
    twice = counted.filter(pc.field("count_all") > 1)
    if twice.num_rows:
        raise XsampleError(
            f"{twice.num_rows} trajectories occur more than once, among them {_first(twice)}"
        )
    return table


def _join(responses: pa.Table, grades: pa.Table) -> pa.Table:
    rows = responses.join(grades, TRAJECTORY_KEY, join_type="left outer")
    missing = rows.filter(pc.field("verdict").is_null())
    if missing.num_rows:
        few = f"{missing.num_rows} of {rows.num_rows} responses"
        raise XsampleError(
            f"{few} have no grade, among them {_first(missing)}: grade the run again"
        )
    return rows


def _first(table: pa.Table) -> tuple[Any, ...]:
    [row] = table.sort_by([(name, "ascending") for name in TRAJECTORY_KEY]).slice(0, 1).to_pylist()
    return tuple(
        None if name == "budget" and row[name] == UNLIMITED_CODE else row[name]
        for name in TRAJECTORY_KEY
    )


def _index_arms(rows: pa.Table) -> tuple[tuple[Arm, ...], Ints]:
    """The arms in order, and the index of each row's arm."""
    if unknown := set(pc.unique(rows["direction"]).to_pylist()) - set(ALL_DIRECTIONS):
        raise XsampleError(
            f"a response has the direction {min(unknown)!r:.60}, which no run has: someone has"
            " changed it"
        )
    direction = _index_among(rows["direction"], ALL_DIRECTIONS)
    budget = _numbers(rows["budget"])
    codes, index = np.unique(
        direction * _FACTOR + np.where(budget == UNLIMITED_CODE, _UNLIMITED, budget),
        return_inverse=True,
    )
    pairs = [divmod(code, _FACTOR) for code in codes.tolist()]
    return tuple(Arm(ALL_DIRECTIONS[d], None if b == _UNLIMITED else b) for d, b in pairs), index


def _index_answers(column: pa.ChunkedArray, grader: GraderName) -> Ints:
    """Index of each row's canonical text."""
    texts, index = _index_texts(pc.fill_null(column, ""))
    classes: dict[str, int] = {}
    class_of = [classes.setdefault(canonical_text(text, grader), len(classes)) for text in texts]
    return np.array(class_of, dtype=np.int64)[index]


def _index_texts(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """The distinct texts in order, and the index of each row's text among them."""
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    return encoded.dictionary.take(order).to_pylist(), rank[encoded.indices.to_numpy()]


def _index_among(column: pa.ChunkedArray, known: tuple[str, ...]) -> Ints:
    """Index of each row's text in `known`."""
    index = pc.index_in(column, pa.array(known, pa.string()))
    unknown = pc.unique(column.filter(index.is_null())).to_pylist()
    assert not unknown, f"{sorted(unknown)} are not among {known}"
    return _numbers(index)


def _numbers(column: pa.ChunkedArray) -> Ints:
    if column.null_count:
        raise XsampleError(
            f"{column.null_count} rows lack a number that every response has: someone has changed"
            " them"
        )
    return np.asarray(column.to_numpy(), dtype=np.int64)
