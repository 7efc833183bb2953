"""Responses and their grades as arrays: the join, with numbers for arms, problems and answers.

R responses, A arms (direction and budget; forward, reverse, given; budgets rising, unlimited last),
P problems by id, S samples, J classes of equal wrong answers. A response without a grade is an
error, never left out.
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
from evaluators.scores.answers import canonical
from evaluators.scores.metrics import Votes

COUNTED = ["tokens", "finish_reason", "interventions", "effective_interventions"]
_GRADED = ["verdict", "answer"]
_SILENT = [place for place, verdict in enumerate(VERDICTS) if verdict in ("no_answer", "guessed")]
_FACTOR = 1 << 33  # above every budget, and _FACTOR - 1 is


class Arm(NamedTuple):
    """`budget` None is unlimited."""

    direction: str
    budget: int | None

    @property
    def place(self) -> tuple[int, float]:
        """By which arms are ordered."""
        return ALL_DIRECTIONS.index(self.direction), budget_order(self.budget)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """R responses; `arm`, `problem`, `sample`, `verdict` and `answer` [R] are numbers of what they
    name.

    `verdict` counts in VERDICTS; `answer` is one number for answers whose canonical text is the
    same.
    """

    arms: tuple[Arm, ...]
    num_problems: int
    arm: Ints
    problem: Ints
    sample: Ints
    verdict: Ints
    answer: Ints
    tokens: Ints
    interventions: Ints
    effective: Ints
    truncated: Bools

    @property
    def everything(self) -> Bools:
        """All responses [R]."""
        return np.ones(len(self.arm), dtype=np.bool_)

    @property
    def correct(self) -> Bools:
        return np.asarray(self.verdict == VERDICTS.index("correct"))

    def per_problem(self, chosen: Bools) -> Ints:
        """How many of the `chosen` responses [R] there are [A, P]."""
        shape = (len(self.arms), self.num_problems)
        return np.bincount(self._cell[chosen], minlength=shape[0] * shape[1]).reshape(shape)

    def per_sample(self, chosen: Bools) -> Bools:
        """Whether there is a `chosen` response [R]: [A, P, S]."""
        cube = np.zeros(
            (len(self.arms), self.num_problems, int(self.sample.max(initial=-1)) + 1),
            dtype=np.bool_,
        )
        cube[self.arm[chosen], self.problem[chosen], self.sample[chosen]] = True
        return cube

    def votes(self) -> list[Votes]:
        """The votes of each arm, over the problems that it has responses to."""
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
        """Sizes of the classes of equal answers [A, P, J] among the responses `wrong` [R], largest
        first.
        """
        num_answers = int(self.answer.max(initial=0)) + 1
        classes, sizes = np.unique(
            self._cell[wrong] * num_answers + self.answer[wrong], return_counts=True
        )
        cell = classes // num_answers
        order = np.lexsort((-sizes, cell))
        cell, sizes = cell[order], sizes[order]
        place = np.arange(len(cell)) - np.searchsorted(cell, cell)
        table = np.zeros(
            (len(self.arms) * self.num_problems, int(place.max(initial=-1)) + 1), dtype=np.int64
        )
        table[cell, place] = sizes
        return table.reshape(len(self.arms), self.num_problems, table.shape[1])

    @property
    def _cell(self) -> Ints:
        return np.asarray(self.arm * self.num_problems + self.problem)


def read_outcomes(responses: pa.Table, grades: pa.Table, grader: GraderName = "math") -> Outcomes:
    """Join and number.

    Raises XsampleError if a grade is missing, a trajectory is there twice, or a row says what no
    run does.
    """
    counted, graded = (
        responses.select([*TRAJECTORY_KEY, *COUNTED]),
        grades.select([*TRAJECTORY_KEY, *_GRADED]),
    )
    rows = _join(keyed(counted), keyed(graded))
    arms, arm = _arms(rows)
    problems, problem = _numbered(rows["problem"])
    return Outcomes(
        arms=arms,
        num_problems=len(problems),
        arm=arm,
        problem=problem,
        sample=np.unique(_numbers(rows["sample"]), return_inverse=True)[1],
        verdict=_places(rows["verdict"], VERDICTS),
        answer=_answers(rows["answer"], grader),
        tokens=_numbers(rows["tokens"]),
        interventions=_numbers(rows["interventions"]),
        effective=_numbers(rows["effective_interventions"]),
        truncated=pc.equal(rows["finish_reason"], "length").to_numpy(),
    )


def keyed(table: pa.Table) -> pa.Table:
    """`table` with -1 for an unlimited budget: a join matches no nulls. Raises XsampleError for a
    key twice.
    """
    place = table.schema.get_field_index("budget")
    table = table.set_column(place, "budget", pc.fill_null(table["budget"], UNLIMITED_CODE))
    counted = table.group_by(TRAJECTORY_KEY).aggregate([([], "count_all")])
    twice = counted.filter(pc.field("count_all") > 1)
    if twice.num_rows:
        raise XsampleError(
            f"{twice.num_rows} trajectories are there more than once, among them {_first(twice)}"
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


def _arms(rows: pa.Table) -> tuple[tuple[Arm, ...], Ints]:
    if unknown := set(pc.unique(rows["direction"]).to_pylist()) - set(ALL_DIRECTIONS):
        raise XsampleError(
            f"a response has the direction {min(unknown)!r:.60}, which no run has: someone has"
            " changed it"
        )
    direction = _places(rows["direction"], ALL_DIRECTIONS)
    budget = _numbers(rows["budget"])
    found, number = np.unique(
        direction * _FACTOR + np.where(budget == UNLIMITED_CODE, _FACTOR - 1, budget),
        return_inverse=True,
    )
    pairs = [divmod(arm, _FACTOR) for arm in found.tolist()]
    return tuple(Arm(ALL_DIRECTIONS[d], None if b == _FACTOR - 1 else b) for d, b in pairs), number


def _answers(column: pa.ChunkedArray, grader: GraderName) -> Ints:
    """One number for each canonical text."""
    texts, number = _numbered(pc.fill_null(column, ""))
    spelled: dict[str, int] = {}
    classes = [spelled.setdefault(canonical(text, grader), len(spelled)) for text in texts]
    return np.array(classes, dtype=np.int64)[number]


def _numbered(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """The distinct texts in order, and the place of each row's among them."""
    encoded = column.combine_chunks().dictionary_encode()
    order = pc.sort_indices(encoded.dictionary)
    places = np.empty(len(order), dtype=np.int64)
    places[order.to_numpy()] = np.arange(len(order))
    return encoded.dictionary.take(order).to_pylist(), places[encoded.indices.to_numpy()]


def _places(column: pa.ChunkedArray, known: tuple[str, ...]) -> Ints:
    """Place of each row's text in `known`."""
    places = pc.index_in(column, pa.array(known, pa.string()))
    unknown = pc.unique(column.filter(places.is_null())).to_pylist()
    assert not unknown, f"{sorted(unknown)} are not among {known}"
    return _numbers(places)


def _numbers(column: pa.ChunkedArray) -> Ints:
    if column.null_count:
        raise XsampleError(
            f"{column.null_count} rows lack a number that every response has: someone has changed"
            " them"
        )
    return np.asarray(column.to_numpy(), dtype=np.int64)
