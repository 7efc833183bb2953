"""What is asked: Problem, and Task, a named set of them. Imports nothing of ours."""

from dataclasses import dataclass
from typing import Literal, get_args

GraderName = Literal["math", "integer", "choice", "exact"]
GRADERS: tuple[GraderName, ...] = get_args(GraderName)


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
