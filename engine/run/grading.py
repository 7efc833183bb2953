"""Grading beside the run: responses go in as they finish, grades come out when they are ready."""

from __future__ import annotations

from typing import Protocol

from engine.core import Grade, Trajectory


class Grader(Protocol):
    """What a run needs of a grader; only `finish` may take long."""

    def submit(self, key: Trajectory, text: str) -> None:
        """Queue a response."""

    def poll(self) -> list[Grade]:
        """The grades that have become ready since the last call."""

    def finish(self) -> list[Grade]:
        """Wait for all other grades."""


class Grading:
    """The grades of a run so far.

    Args:
        grader: None where no gold answer is known, and for a shard: then there are no grades.
    """

    def __init__(self, grader: Grader | None) -> None:
        self._grader = grader
        self.grades: list[Grade] = []
        self.num_correct = 0

    @property
    def is_on(self) -> bool:
        """Whether responses are graded at all."""
        return self._grader is not None

    def submit(self, key: Trajectory, text: str) -> None:
        """Queue a finished response."""
        if self._grader:
            self._grader.submit(key, text)

    def poll(self) -> None:
        """Take the grades that are ready."""
        if self._grader:
            self._take(self._grader.poll())

    def finish(self) -> list[Grade]:
        """Wait for the grades that are not ready yet, and return all grades."""
        if self._grader:
            self._take(self._grader.finish())
        return self.grades

    def _take(self, grades: list[Grade]) -> None:
        self.grades += grades
        self.num_correct += sum(grade.correct is True for grade in grades)
