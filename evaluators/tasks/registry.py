"""The task sets by name, and the one way to a Task. A new set is a file like `aime.py`, and a line
in TASKS.

`load_task` proves a task before anything runs: it has problems, their ids are unique, and every
gold answer grades as correct through the task's own grader.
"""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches

from engine.config.run_config import RunConfig
from engine.core import Problem, Task
from engine.errors import TaskError
from evaluators.tasks.aime import AIME24, AIME25
from evaluators.tasks.arithmetic import ARITHMETIC
from evaluators.tasks.file import file_task
from evaluators.tasks.gpqa import GPQA_DIAMOND
from evaluators.tasks.prompts import PROMPTS, read_template
from evaluators.tasks.sources import resolve as source
from evaluators.tasks.task_set import Loaded, TaskSet

TASKS: dict[str, TaskSet] = {task.name: task for task in (ARITHMETIC, AIME24, AIME25, GPQA_DIAMOND)}


def load_task(config: RunConfig) -> Task:
    """The task that the configuration names, with its prompt, template, grader and limit applied.

    Raises TaskError: unknown, not to be read, empty, ids given twice, or a gold answer that its own
    grader does not take; ConfigError for a prompt template that cannot be used.
    """
    task_set = find(config.task)
    template = read_template(config.prompt_template) if config.prompt_template else None
    loaded = task_set.load(task_set, config)
    task = Task(
        task_set.name,
        tuple(loaded.problems[: config.limit]),
        PROMPTS[config.prompt or task_set.prompt] if template is None else template,
        task_set.samples,
        task_set.max_tokens,
        config.grader or task_set.grader,
        task_set.gated,
        loaded.source,
        (*loaded.notes, *_unexpected_number(task_set, loaded)),
    )
    prove(task)
    return task


def find(name: str) -> TaskSet:
    """The task set of that name; else the one at that path or hub id. Raises TaskError."""
    if name in TASKS:
        return TASKS[name]
    if source.existing(name) or source.is_place(name):
        return file_task(name)
    near = get_close_matches(name.lower(), TASKS, n=3)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    raise TaskError(
        f"task {name!r} is not known{hint}; known: {', '.join(sorted(TASKS))}; "
        "or give a CSV, JSONL or Parquet file, a folder of them, or a hub id (org/name)"
    )


def prove(task: Task) -> None:
    """Raise TaskError unless there are problems, ids are unique and every gold answer grades as
    correct.
    """
    if not task.problems:
        raise TaskError(f"task {task.name!r} has no problems")
    double = [
        id for id, count in Counter(problem.id for problem in task.problems).items() if count > 1
    ]
    if double:
        raise TaskError(
            f"task {task.name!r} has {len(double)} problem ids more than once, among them"
            f" {double[0]!r}"
        )
    _prove_gold_answers(task)


def _prove_gold_answers(task: Task) -> None:
    from engine.core import Trajectory
    from evaluators.grading.grader import Grader

    with Grader(task.problems, task.grader) as grader:
        for problem in task.problems:
            grader.submit(Trajectory(problem.id, 0, "forward", 0), _response(task, problem))
        wrong = [grade for grade in grader.finish() if not grade.correct]
    if wrong:
        worst = min(wrong, key=lambda grade: grade.key.problem)
        raise TaskError(
            f"task {task.name!r}: the gold answers of {len(wrong):,} of {len(task.problems):,}"
            f" problems do not grade as correct, among them that of {worst.key.problem!r}: the"
            f" grader {task.grader!r} reads {worst.answer!r} and says {worst.verdict}; mend them,"
            " or give another --answer-column or --grader"
        )


def _response(task: Task, problem: Problem) -> str:
    """What a model would say that knows the answer."""
    return (
        f"Answer: {problem.answer}" if task.grader == "choice" else rf"\boxed{{{problem.answer}}}"
    )


def _unexpected_number(task_set: TaskSet, loaded: Loaded) -> list[str]:
    if task_set.num_problems in (None, len(loaded.problems)):
        return []
    return [
        f"{task_set.name} has {task_set.num_problems} problems, {loaded.source} holds"
        f" {len(loaded.problems):,}"
    ]
