"""The task sets by name, and `load_task`, which makes a Task of one of them.

A new task set is a file like `aime.py` and an entry of TASKS. `load_task` proves a task before
anything runs: it has problems, their ids are unique, and its own grader grades every gold answer as
correct.
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
from evaluators.tasks.sources import resolve
from evaluators.tasks.task_set import LoadedProblems, TaskSet

TASKS: dict[str, TaskSet] = {task.name: task for task in (ARITHMETIC, AIME24, AIME25, GPQA_DIAMOND)}


def load_task(config: RunConfig) -> Task:
    """The task that the configuration names, with its prompt, template, grader and limit applied.

    Raises:
        TaskError: The task is not known, cannot be read, or does not pass `prove`.
        ConfigError: The prompt template cannot be used.
    """
    task_set = find_task_set(config.task)
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
        (*loaded.notes, *_note_unexpected_number(task_set, loaded)),
    )
    prove(task)
    return task


def find_task_set(name: str) -> TaskSet:
    """The task set of a name of TASKS, else the one at a path or hub id.

    Raises:
        TaskError: The name is neither in TASKS nor a path nor a hub id.
    """
    if name in TASKS:
        return TASKS[name]
    if resolve.find_path(name) or resolve.is_place(name):
        return file_task(name)
    near = get_close_matches(name.lower(), TASKS, n=3)
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    raise TaskError(
        f"task {name!r} is not known{hint}; known: {', '.join(sorted(TASKS))}; "
        "or give a CSV, JSONL or Parquet file, a folder of them, or a hub id (org/name)"
    )


def prove(task: Task) -> None:
    """Check that a task can be graded before anything runs on it.

    Raises:
        TaskError: There are no problems, two share an id, or the task's grader does not grade a
            gold answer as correct.
    """
    if not task.problems:
        raise TaskError(f"task {task.name!r} has no problems")
    counts = Counter(problem.id for problem in task.problems)
    repeated = [id for id, count in counts.items() if count > 1]
    if repeated:
        raise TaskError(
            f"task {task.name!r} has {len(repeated)} problem ids more than once, among them"
            f" {repeated[0]!r}"
        )
    _prove_gold_answers(task)


def _prove_gold_answers(task: Task) -> None:
    from engine.core import Trajectory
    from evaluators.grading.grader import Grader

    with Grader(task.problems, task.grader) as grader:
        for problem in task.problems:
            grader.submit(Trajectory(problem.id, 0, "forward", 0), _gold_response(task, problem))
        failing = [grade for grade in grader.finish() if not grade.correct]
    if failing:
        first = min(failing, key=lambda grade: grade.key.problem)
        raise TaskError(
            f"task {task.name!r}: the gold answers of {len(failing):,} of {len(task.problems):,}"
            f" problems do not grade as correct, among them that of {first.key.problem!r}: the"
            f" grader {task.grader!r} reads {first.answer!r} and says {first.verdict}; mend them,"
            " or give another --answer-column or --grader"
        )


def _gold_response(task: Task, problem: Problem) -> str:
    """A response that commits to the gold answer."""
    if task.grader == "choice":
        return f"Answer: {problem.answer}"
    return rf"\boxed{{{problem.answer}}}"


def _note_unexpected_number(task_set: TaskSet, loaded: LoadedProblems) -> list[str]:
    if task_set.num_problems in (None, len(loaded.problems)):
        return []
    return [
        f"{task_set.name} has {task_set.num_problems} problems, {loaded.source} holds"
        f" {len(loaded.problems):,}"
    ]
