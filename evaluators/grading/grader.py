r"""From responses to verdicts, beside the run: `submit` what is finished, `poll` what is decided.

What notation decides is decided here (`judges.py`); the formulas that are left go to grading
processes (`pool.py`), and equal questions go there once. A Grader holds no response text: the queue
carries extracted answers, is bounded, and a grade keeps no more of an answer than a reader needs.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Self

import pyarrow as pa

from engine.core import TRAJECTORY_KEY, Grade, GraderName, Problem, Trajectory
from engine.errors import TaskError, XsampleError
from evaluators.grading.extraction import Extraction, extract
from evaluators.grading.formula import Question
from evaluators.grading.judges import GUESSES, JUDGES
from evaluators.grading.pool import MathPool
from evaluators.grading.verdict import CORRECT, Verdict

# Above this many undecided answers `submit` waits for one. No run of a sensible size gets there.
MAX_WAITING = 50_000
_MAX_REMEMBERED = 10_000
_MAX_STORED_CHARS = 2_000


class Grader:
    """Grades responses to the given problems; use it in a `with` block. For one thread."""

    def __init__(
        self,
        problems: Iterable[Problem],
        grader: GraderName = "math",
        workers: int = 1,
        deadline_s: float = 10.0,
    ) -> None:
        self._problems = {problem.id: problem for problem in problems}
        self._judge, self._guess_kind = JUDGES[grader], GUESSES[grader]
        self._pool = MathPool(workers, deadline_s)
        self._asked: dict[Question, Future[Verdict]] = {}
        self._decided: SimpleQueue[Grade | BaseException] = SimpleQueue()
        self._num_waiting = 0  # submitted and not yet taken out of _decided
        self._ready: list[Grade] = []
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()

    def submit(self, key: Trajectory, text: str) -> None:
        """Take one finished response. Raises TaskError when there is no such problem."""
        problem = self._problems.get(key.problem)
        if problem is None:
            raise TaskError(
                f"problem {key.problem!r} is not in the task set: grade with the one that the run"
                " was made on"
            )
        if self._num_waiting >= MAX_WAITING:
            self._take_one()
        self._num_waiting += 1
        found = extract(text, self._guess_kind)
        verdict = self._compare(problem, found)
        grade = partial(_grade, key, problem, _stored(found))
        if isinstance(verdict, Question):
            self._ask(verdict).add_done_callback(partial(self._on_answered, grade))
        else:
            self._decided.put(grade(verdict))

    def poll(self) -> list[Grade]:
        """The grades decided since the last call, in the order of their decision. Never blocks."""
        while not self._decided.empty():
            self._take_one()
        grades, self._ready = self._ready, []
        return grades

    def finish(self) -> list[Grade]:
        """Wait for all that was submitted; the grades not yet given out. Raises XsampleError if
        grading failed.
        """
        while self._num_waiting:
            self._take_one()
        if self._failure is not None:
            raise XsampleError(
                f"{self._failure}; the responses are kept, and can be graded again"
            ) from self._failure
        return self.poll()

    def _compare(self, problem: Problem, found: Extraction) -> Verdict | Question:
        if found.answer is None:
            return "no_answer" if found.guess is None else "guessed"
        return self._judge(problem.answer, found.answer)

    def _ask(self, question: Question) -> Future[Verdict]:
        if question not in self._asked:
            if len(self._asked) >= _MAX_REMEMBERED:
                del self._asked[next(iter(self._asked))]
            self._asked[question] = self._pool.submit(question)
        return self._asked[question]

    def _on_answered(self, grade: partial[Grade], future: Future[Verdict]) -> None:
        """Runs in a thread of the pool."""
        if not future.cancelled():
            self._decided.put(future.exception() or grade(future.result()))

    def _take_one(self) -> None:
        decided = self._decided.get()
        self._num_waiting -= 1
        if isinstance(decided, BaseException):
            self._failure = self._failure or decided
        else:
            self._ready.append(decided)


def grade_responses(
    parts: Iterable[pa.Table],
    problems: Iterable[Problem],
    grader: GraderName = "math",
    workers: int = 1,
    deadline_s: float = 10.0,
) -> list[Grade]:
    """Grade every row of tables of responses, in the order of their decision. Holds one table's
    texts at a time.
    """
    grades: list[Grade] = []
    with Grader(problems, grader, workers, deadline_s) as grading:
        for part in parts:
            for *key, text in zip(
                *(part[name].to_pylist() for name in (*TRAJECTORY_KEY, "text")), strict=True
            ):
                grading.submit(Trajectory(*key), text)
            grades += grading.poll()
        return grades + grading.finish()


def _stored(found: Extraction) -> Extraction:
    """What a grade keeps of it: enough for a reader, and text that every table can hold."""
    return Extraction(_shortened(found.answer), _shortened(found.guess), found.method)


def _shortened(text: str | None) -> str | None:
    if text is None:
        return None
    if len(text) > _MAX_STORED_CHARS:
        text = text[: _MAX_STORED_CHARS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return text.encode(errors="replace").decode()


def _grade(key: Trajectory, problem: Problem, found: Extraction, verdict: Verdict) -> Grade:
    return Grade(
        key, found.answer, found.guess, found.method, verdict, CORRECT[verdict], problem.options
    )
