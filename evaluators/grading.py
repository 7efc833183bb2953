r"""From responses to verdicts, beside the run: `submit` what is finished, `poll` what is decided.

Plain integers are compared here, by their digits; every other answer goes to a grading process
(`pool.py`), and equal answers to one problem go there once. A Grader holds no response text: the queue
carries extracted answers, and is bounded.
"""

from __future__ import annotations

import re
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Self

import pyarrow as pa

from engine.errors import TaskError, XsampleError
from engine.problem import Task
from engine.record import TRAJECTORY_KEY, Grade, Trajectory
from evaluators.extraction import Extraction, extract
from evaluators.pool import MathPool
from evaluators.verdict import CORRECT, Verdict

# No sensible final answer is longer, and a parser would choke on it.
MAX_ANSWER_CHARS = 2_000
# Above this many undecided answers `submit` waits for one. No run of a sensible size gets there.
MAX_WAITING = 50_000
_MAX_REMEMBERED = 10_000

_DELIMITERS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"))
# Thousands: groups of three behind one and the same separator, as in 1,000 1{,}000 1\,000 1,\!000
_INTEGER = re.compile(r"([+-]?)(\d{1,3}(?:(,|\{,\}|\\,|,\\!)\d{3}(?:\3\d{3})*)?|\d+)", re.ASCII)
_ONE_FORMULA_IN_WORDS = re.compile(r"[^\d$\\]*\$([^$]+)\$[^\d$\\]*")


class Grader:
    """Grades responses to one task; use it in a `with` block. For one thread."""

    def __init__(self, task: Task, workers: int = 1, deadline_s: float = 10.0) -> None:
        self._task_name = task.name
        self._gold = {problem.id: problem.answer for problem in task.problems}
        self._pool = MathPool(workers, deadline_s)
        self._judged: dict[tuple[str, str], Future[Verdict]] = {}
        self._decided: SimpleQueue[Grade | BaseException] = SimpleQueue()
        self._num_waiting = 0  # submitted and not yet taken out of _decided
        self._ready: list[Grade] = []
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.close()

    def submit(self, key: Trajectory, text: str) -> None:
        """Take one finished response. Raises TaskError when the task has no such problem."""
        if key.problem not in self._gold:
            raise TaskError(f"problem {key.problem!r} is not in task {self._task_name!r}: grade with the run's task")
        if self._num_waiting >= MAX_WAITING:
            self._take_one()
        self._num_waiting += 1
        gold, found = self._gold[key.problem], extract(text)
        verdict = decide_inline(gold, found.answer)
        if verdict is not None:
            self._decided.put(_grade(key, found, verdict))
        else:
            self._judge(gold, found.answer or "").add_done_callback(partial(self._on_judged, key, found))

    def poll(self) -> list[Grade]:
        """The grades decided since the last call, in the order of their decision. Never blocks."""
        while not self._decided.empty():
            self._take_one()
        grades, self._ready = self._ready, []
        return grades

    def finish(self) -> list[Grade]:
        """Wait for all that was submitted; the grades not yet given out. Raises XsampleError if grading failed."""
        while self._num_waiting:
            self._take_one()
        if self._failure is not None:
            raise XsampleError(f"{self._failure}; the responses are kept, and can be graded again") from self._failure
        return self.poll()

    def _judge(self, gold: str, answer: str) -> Future[Verdict]:
        question = (delimited(gold), delimited(answer))
        if question not in self._judged:
            if len(self._judged) >= _MAX_REMEMBERED:
                del self._judged[next(iter(self._judged))]
            self._judged[question] = self._pool.submit(*question)
        return self._judged[question]

    def _on_judged(self, key: Trajectory, found: Extraction, future: Future[Verdict]) -> None:
        """Runs in a thread of the pool."""
        if not future.cancelled():
            self._decided.put(future.exception() or _grade(key, found, future.result()))

    def _take_one(self) -> None:
        decided = self._decided.get()
        self._num_waiting -= 1
        if isinstance(decided, BaseException):
            self._failure = self._failure or decided
        else:
            self._ready.append(decided)


def grade_table(responses: pa.Table, task: Task, workers: int = 1, deadline_s: float = 10.0) -> list[Grade]:
    """Grade every row of a `responses` table; the grades are in the order of the rows."""
    grades: list[Grade] = []
    keys: list[Trajectory] = []
    with Grader(task, workers, deadline_s) as grader:
        for batch in responses.select([*TRAJECTORY_KEY, "text"]).to_batches(max_chunksize=1_000):
            for row in batch.to_pylist():
                keys.append(Trajectory(*(row[column] for column in TRAJECTORY_KEY)))
                grader.submit(keys[-1], row["text"])
            grades += grader.poll()
        grades += grader.finish()
    by_key = {grade.key: grade for grade in grades}
    return [by_key[key] for key in keys]


def decide_inline(gold: str, answer: str | None) -> Verdict | None:
    """The verdict where no formula has to be understood; None where one has."""
    if answer is None:
        return "no_answer"
    gold_integer, answer_integer = integer(gold), integer(answer)
    if gold_integer is not None and answer_integer is not None:
        return "correct" if gold_integer == answer_integer else "wrong"
    return "ungradable" if len(answer) > MAX_ANSWER_CHARS else None


def integer(text: str) -> str | None:
    """Canonical digits of a plain integer (`$007$`, `1,000`, `-0`), None for anything else. Any length."""
    match = _INTEGER.fullmatch(undelimited(text).strip("\\$ ").replace("\N{MINUS SIGN}", "-"))
    if match is None:
        return None
    digits = re.sub(r"\D", "", match[2]).lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def undelimited(text: str) -> str:
    """Without white space, a full stop and the one pair of math delimiters around it."""
    text = text.strip().removesuffix(".").rstrip()
    for left, right in _DELIMITERS:
        if text.startswith(left) and text.endswith(right) and len(text) >= len(left) + len(right):
            return text[len(left) : -len(right)].strip().removesuffix(".").rstrip()
    return text


def delimited(text: str) -> str:
    """A formula for math-verify's `parse`, without dollars: inside its delimiters one would start another formula,
    of which it takes the last. Words around a single formula (`the sum is $5$`) are left out.
    """
    words = _ONE_FORMULA_IN_WORDS.fullmatch(text)
    formula = undelimited(words[1] if words else text)
    return " ".join(re.sub(r"\\?\$", " ", formula).split())


def _grade(key: Trajectory, found: Extraction, verdict: Verdict) -> Grade:
    return Grade(key, found.answer, found.method, verdict, CORRECT[verdict])
