"""The task sets by name. A new one is a function that returns a Task, and a line in TASKS.

`load_task` proves a task before anything runs: it has problems, their ids are unique, and every gold
answer grades as correct through the task's own grader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches

from engine.errors import TaskError
from engine.problem import Task


def _arithmetic() -> Task:
    from evaluators import arithmetic

    return Task("arithmetic", tuple(arithmetic.load()), template="{question}", samples=8, max_tokens=192)


TASKS: dict[str, Callable[[], Task]] = {
    "arithmetic": _arithmetic,
}


def load_task(name: str, limit: int | None = None) -> Task:
    """The task, or its first `limit` problems. Raises TaskError: unknown, empty, double ids, or a gold answer that
    its own grader does not take.
    """
    if name not in TASKS:
        near = get_close_matches(name, TASKS, n=3)
        hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
        raise TaskError(f"task {name!r} is not known{hint}; known: {', '.join(sorted(TASKS))}")
    task = TASKS[name]()
    task = replace(task, problems=task.problems[:limit])
    _check_problems(task)
    _check_gold_answers(task)
    return task


def _check_problems(task: Task) -> None:
    if not task.problems:
        raise TaskError(f"task {task.name!r} has no problems")
    double = [id for id, count in Counter(problem.id for problem in task.problems).items() if count > 1]
    if double:
        raise TaskError(f"task {task.name!r} has {len(double)} problem ids more than once, among them {double[0]!r}")


def _check_gold_answers(task: Task) -> None:
    from engine.record import Trajectory
    from evaluators.grading import Grader

    with Grader(task) as grader:
        for problem in task.problems:
            grader.submit(Trajectory(problem.id, 0, "forward", 0), rf"\boxed{{{problem.answer}}}")
        wrong = [grade for grade in grader.finish() if not grade.correct]
    if wrong:
        grade = wrong[0]
        raise TaskError(
            f"task {task.name!r}: the gold answers of {len(wrong)} problems do not grade as correct, among them "
            f"{grade.key.problem!r}: the grader reads {grade.answer!r} and says {grade.verdict}"
        )
