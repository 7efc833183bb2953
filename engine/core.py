"""The nouns of the project: problems, tasks, trajectories, external responses, grades, failures.

This file imports no other of ours. A trajectory is (problem, sample, direction, budget).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple, get_args

Policy = Literal["base", "rl"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

Direction = Literal["forward", "reverse"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)

PRIMARY: dict[str, Policy] = {"forward": "base", "reverse": "rl"}
"""The policy that a direction samples from where it does not intervene."""

Budget = int | None
"""Interventions that a response may have at most. None is unlimited, in memory and on disk."""

GraderName = Literal["math", "integer", "choice", "exact"]
GRADERS: tuple[GraderName, ...] = get_args(GraderName)


def budget_text(budget: Budget) -> str:
    """A budget as the user writes it: a number, or `unlimited`."""
    return "unlimited" if budget is None else str(budget)


def budget_order(budget: Budget) -> float:
    """The key that sorts budgets, smallest first and unlimited last."""
    return inf if budget is None else budget


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a task set."""

    id: str
    """Unique in its task set and stable between runs: it keys the noise and every table."""
    question: str
    """The question without a prompt around it; with its lettered options in multiple choice."""
    answer: str
    """The gold answer in the notation of the task's grader; a letter in multiple choice."""
    options: tuple[int, ...] | None = None
    """In multiple choice, the order of the options.

    The option with letter A + i is option options[i] of the source, whose option 0 is right.
    """


@dataclass(frozen=True, slots=True)
class Task:
    """A task set, ready to run."""

    name: str
    problems: tuple[Problem, ...]
    template: str
    """The user turn. It holds `{question}` once, and no other placeholder is replaced."""
    samples: int
    """Samples of each problem, if the user gives no number."""
    max_tokens: int
    """Length cap of a response in tokens, if the user gives none."""
    grader: GraderName = "math"
    """How an answer is compared with the gold answer."""
    gated: bool = False
    """Whether the text of the problems must not be published.

    The run directory then does not hold it by itself, and reports redact it.
    """
    source: str = "embedded"
    """Where the problems come from: a hub id, a path or "embedded"."""
    notes: tuple[str, ...] = ()
    """What the user should know about the problems, one line each."""

    def user_turn(self, problem: Problem) -> str:
        """The text of the user's message."""
        # Plain replacement, not str.format: a question may hold braces.
        return self.template.replace("{question}", problem.question)


GIVEN = "given"
"""The direction of an external response."""

ALL_DIRECTIONS = (*DIRECTIONS, GIVEN)

UNLIMITED_CODE = -1
"""An unlimited budget where null has another meaning or cannot be compared."""

TRAJECTORY_KEY = ("problem", "sample", "direction", "budget")
"""The fields of `Trajectory`, which are the first columns of every table."""


class Trajectory(NamedTuple):
    """Key of one trajectory."""

    problem: str
    """The problem's id."""
    sample: int
    direction: str
    """"forward", "reverse" or "given"."""
    budget: Budget

    def __str__(self) -> str:
        """The key in words, for messages."""
        arm = self.direction
        if arm != GIVEN:
            arm += f" budget {budget_text(self.budget)}"
        return f"{self.problem} sample {self.sample} {arm}"


@dataclass(frozen=True, slots=True)
class ExternalResponse:
    """One response that was generated elsewhere."""

    key: Trajectory
    prompt: list[int]
    """Token ids."""
    response: list[int]
    """Token ids."""
    stopped: bool
    """Whether it ended by itself, else by a length cap."""
    where: str
    """Its file and row, or its run and trajectory, for messages."""


@dataclass(frozen=True, slots=True)
class ExternalResponses:
    """Responses from one source."""

    name: str
    source: str
    responses: tuple[ExternalResponse, ...]
    """The responses, with unique keys."""
    problems: tuple[Problem, ...] = ()
    """The problems that they answer, as far as gold answers are known."""
    grader: GraderName = "math"
    gated: bool = False
    """Whether the text of the problems must not be published."""
    notes: tuple[str, ...] = ()
    """What the user should know about the responses, one line each."""


class Grade(NamedTuple):
    """The verdict on one trajectory: a row of the table of grades."""

    key: Trajectory
    answer: str | None
    guess: str | None
    method: str | None
    verdict: str
    correct: bool | None
    options: tuple[int, ...] | None = None


class Failure(NamedTuple):
    """A trajectory that was given up: a row of the table of failures."""

    key: Trajectory
    attempts: int
    error: str
