"""The nouns of the project: what is asked, what is made of it, and what came out. Imports nobody.

A trajectory is (problem, sample, direction, budget); budget None is unlimited.
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
    """One problem of a task set.

    id:       unique in its task set, stable between runs (it keys the noise and every table)
              question: what is asked, without any prompt around it; with its lettered options in
              multiple choice
    answer:   the gold answer, as the task's grader takes it; a letter in multiple choice
    options:  multiple choice only: at place i (letter A + i) stands option options[i] of the
              source, whose 0 is right
    """

    id: str
    question: str
    answer: str
    options: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A task set, ready to run.

    template:   the user turn; holds `{question}` once, and no other placeholder is replaced
    samples:    samples a problem when the user gives none max_tokens: length cap of a response, in
                tokens, when the user gives none
    grader:     how an answer is compared with the gold one
    gated:      the text of the problems must not be published: the run directory does not hold it
                by itself, and reports redact it
    source:     where the problems come from: a hub id, a path, "embedded"
    notes:      what the user should know about what was read, a line each
    """

    name: str
    problems: tuple[Problem, ...]
    template: str
    samples: int
    max_tokens: int
    grader: GraderName = "math"
    gated: bool = False
    source: str = "embedded"
    notes: tuple[str, ...] = ()

    def user_turn(self, problem: Problem) -> str:
        """The text of the user's message. Plain replacement: a question may hold braces."""
        return self.template.replace("{question}", problem.question)


GIVEN = "given"  # the direction of a response that was made elsewhere
ALL_DIRECTIONS = (*DIRECTIONS, GIVEN)
UNLIMITED_CODE = -1  # an unlimited budget where null means something else, or cannot be compared
TRAJECTORY_KEY = ("problem", "sample", "direction", "budget")


class Trajectory(NamedTuple):
    """Key of one trajectory. `budget` None is unlimited; `direction` is "forward", "reverse" or
    "given".
    """

    problem: str
    sample: int
    direction: str
    budget: Budget

    def __str__(self) -> str:
        """The key in words, for messages."""
        arm = self.direction
        if arm != GIVEN:
            arm += f" budget {budget_text(self.budget)}"
        return f"{self.problem} sample {self.sample} {arm}"


@dataclass(frozen=True, slots=True)
class ExternalResponse:
    """One response. prompt, response: token ids; stopped: it ended by itself, else by a length cap.

    where: for messages, the file and row or the run and trajectory that it comes from.
    """

    key: Trajectory
    prompt: list[int]
    response: list[int]
    stopped: bool
    where: str


@dataclass(frozen=True, slots=True)
class ExternalResponses:
    """Responses from one source, keys unique, and the problems that they answer, as far as gold
    answers are known.
    """

    name: str
    source: str
    responses: tuple[ExternalResponse, ...]
    problems: tuple[Problem, ...] = ()
    grader: GraderName = "math"
    gated: bool = False
    notes: tuple[str, ...] = ()


class Grade(NamedTuple):
    """The verdict on one trajectory; the columns of GRADES after the key."""

    key: Trajectory
    answer: str | None
    guess: str | None
    method: str | None
    verdict: str
    correct: bool | None
    options: tuple[int, ...] | None = None


class Failure(NamedTuple):
    """A trajectory that was given up; the columns of FAILURES after the key."""

    key: Trajectory
    attempts: int
    error: str
