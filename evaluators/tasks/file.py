"""The user's own task, `--task FILE`: a CSV, JSON or Parquet file, a folder of them, or a hub id.

    problem,answer
    "What is the sum of the first 40 odd numbers?",1600

becomes a Problem with the answer 1600. Its id is a hash of its question, since the row holds none.
Columns are found by their usual names (`columns.py`), or by the names that --question-column,
--answer-column and --id-column give.
"""

from __future__ import annotations

from pathlib import Path

from engine.config.run_config import RunConfig
from engine.core import Problem
from engine.errors import TaskError
from evaluators.tasks.entries import read_entries
from evaluators.tasks.sources import local, resolve
from evaluators.tasks.task_set import LoadedProblems, TaskSet


def file_task(place: str) -> TaskSet:
    """The task set at a path or hub id, named after it.

    Raises:
        TaskError: The name is not printable, or the path may not be read.
    """
    path = resolve.find_path(place)
    name = _stem(path) if path else place.rpartition("/")[2]
    if not name.isprintable():
        raise TaskError(
            f"task is {place!r}: the task is called after it, so its name must be printable:"
            " rename it"
        )
    return TaskSet(name, f"problems of {place}", place, None, _load)


def _load(task_set: TaskSet, config: RunConfig) -> LoadedProblems:
    if config.task_data is not None:
        raise TaskError(
            f"task_data is {config.task_data!r}, but task names a place already, {config.task!r}:"
            " give one"
        )
    entries, notes = read_entries(config, config.task, "task")
    problems = [
        Problem(f"{task_set.name}/{entry.id}", entry.question, entry.answer) for entry in entries
    ]
    return LoadedProblems(problems, config.task, notes)


def _stem(path: Path) -> str:
    name = path.absolute().name or "root"
    if path.is_dir() or not local.is_data(name):
        return name
    return Path(name[:-3] if name.lower().endswith(".gz") else name).stem
