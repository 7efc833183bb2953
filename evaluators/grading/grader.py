"""Responses -> grades, beside the run: `submit` a finished response, `poll` the decided grades.

A comparator (`comparators.py`) decides what notation can decide. The remaining formulas go to
grading processes (`pool.py`), equal questions once. A Grader holds no text of a response: its
queue is bounded and carries extracted answers, and a grade keeps a long answer shortened.
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
from evaluators.grading.comparators import COMPARATORS, GUESS_KINDS
from evaluators.grading.extraction import Extraction, extract
from evaluators.grading.formula import Question
from evaluators.grading.pool import MathPool
from evaluators.grading.verdict import CORRECT, Verdict

MAX_WAITING = 50_000
"""Undecided answers at which `submit` waits for a decision; far above those of a usual run."""
_MAX_QUESTIONS = 10_000
"""Questions whose verdicts are remembered; the oldest is forgotten first."""
_MAX_STORED_CHARS = 2_000


class Grader:
    """Grades responses to problems. Use it in a `with` block, and from one thread.

    Args:
        problems: The problems with their gold answers.
        grader: How answers are compared.
        workers: Processes that compare formulas.
        deadline_s: Seconds after which a comparison is given up.
    """

    def __init__(
        self,
        problems: Iterable[Problem],
        grader: GraderName = "math",
        workers: int = 1,
        deadline_s: float = 10.0,
    ) -> None:
        self._problems = {problem.id: problem for problem in problems}
        self._compare, self._guess_kind = COMPARATORS[grader], GUESS_KINDS[grader]
        self._pool = MathPool(workers, deadline_s)
        self._verdicts: dict[Question, Future[Verdict]] = {}
        self._decided: SimpleQueue[Grade | BaseException] = SimpleQueue()
        self._num_waiting = 0  # submitted and not yet taken out of _decided
        self._ready: list[Grade] = []
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()

    def submit(self, key: Trajectory, text: str) -> None:
        """Grade a finished response; its grade comes out of `poll` or `finish`.

        Args:
            key: The key of the response's trajectory.
            text: The response.

        Raises:
            TaskError: The key's problem is not one of the grader's.
        """
        problem = self._problems.get(key.problem)
        if problem is None:
            raise TaskError(
                f"problem {key.problem!r} is not in the task set: grade with the one that the run"
                " was made on"
            )
        if self._num_waiting >= MAX_WAITING:
            self._take_decision()
        self._num_waiting += 1
        extraction = extract(text, self._guess_kind)
        verdict = self._decide(problem, extraction)
        grade = partial(_grade, key, problem, _shorten(extraction))
        if isinstance(verdict, Question):
            self._ask(verdict).add_done_callback(partial(self._on_verdict, grade))
        else:
            self._decided.put(grade(verdict))

    def poll(self) -> list[Grade]:
        """The grades decided since the last call, in the order of decision, without waiting."""
        while not self._decided.empty():
            self._take_decision()
        grades, self._ready = self._ready, []
        return grades

    def finish(self) -> list[Grade]:
        """Wait for all submitted responses.

        Returns:
            The grades since the last `poll`, in the order of decision.

        Raises:
            XsampleError: Grading failed, as its processes cannot be started.
        """
        while self._num_waiting:
            self._take_decision()
        if self._failure is not None:
            raise XsampleError(
                f"{self._failure}; the responses are kept, and can be graded again"
            ) from self._failure
        return self.poll()

    def _decide(self, problem: Problem, extraction: Extraction) -> Verdict | Question:
        if extraction.answer is None:
            return "no_answer" if extraction.guess is None else "guessed"
        return self._compare(problem.answer, extraction.answer)

    def _ask(self, question: Question) -> Future[Verdict]:
        """Ask the pool, or the verdicts of earlier questions."""
        if question not in self._verdicts:
            if len(self._verdicts) >= _MAX_QUESTIONS:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[question] = self._pool.submit(question)
        return self._verdicts[question]

    def _on_verdict(self, grade: partial[Grade], future: Future[Verdict]) -> None:
        """Runs in a thread of the pool."""
        if not future.cancelled():
            self._decided.put(future.exception() or grade(future.result()))

    def _take_decision(self) -> None:
        """Take a grade or a failure out of the queue; wait for one if the queue is empty."""
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
    """Grade every row of tables of responses, holding the texts of one table at a time.

    Args:
        parts: Tables with the columns of TRAJECTORY_KEY and `text`.
        problems: The problems with their gold answers.
        grader: How answers are compared.
        workers: Processes that compare formulas.
        deadline_s: Seconds after which a comparison is given up.

    Returns:
        The grades, in the order of decision.

    Raises:
        TaskError: A response answers none of the problems.
        XsampleError: Grading failed, as its processes cannot be started.
    """
    columns = (*TRAJECTORY_KEY, "text")
    grades: list[Grade] = []
    with Grader(problems, grader, workers, deadline_s) as grading:
        for part in parts:
            cells = (part[name].to_pylist() for name in columns)
            for *key, text in zip(*cells, strict=True):
                grading.submit(Trajectory(*key), text)
            grades += grading.poll()
        return grades + grading.finish()


def _shorten(extraction: Extraction) -> Extraction:
    """The extraction as a grade stores it."""
    answer, guess = _shorten_text(extraction.answer), _shorten_text(extraction.guess)
    return Extraction(answer, guess, extraction.method)


def _shorten_text(text: str | None) -> str | None:
    """Text of at most _MAX_STORED_CHARS, without lone surrogates, which no table can hold."""
    if text is None:
        return None
    if len(text) > _MAX_STORED_CHARS:
        text = text[: _MAX_STORED_CHARS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return text.encode(errors="replace").decode()


def _grade(key: Trajectory, problem: Problem, extraction: Extraction, verdict: Verdict) -> Grade:
    return Grade(
        key,
        extraction.answer,
        extraction.guess,
        extraction.method,
        verdict,
        CORRECT[verdict],
        problem.options,
    )
