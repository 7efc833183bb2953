"""What is asked: Problem, and Task, a named set of them. Imports nothing of ours."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a task set.

    id:       unique in its task set, stable between runs (it keys the noise and every table)
    question: what is asked, without any prompt around it
    answer:   the gold answer, as the task's grader takes it
    """

    id: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    """A task set, ready to run.

    template:   the user turn; holds `{question}` once, and no other placeholder is replaced
    samples:    samples a problem when the user gives none
    max_tokens: length cap of a response, in tokens, when the user gives none
    """

    name: str
    problems: tuple[Problem, ...]
    template: str
    samples: int
    max_tokens: int

    def user_turn(self, problem: Problem) -> str:
        """The text of the user's message. Plain replacement: a question may hold braces."""
        return self.template.replace("{question}", problem.question)
