"""Given responses, to be measured under a pair: those of a run directory, or a row a response of a
file.

The file comes through the same reader as the files of a task (`local.py`), its rows through
`given_rows.py`. Whether ids fit the vocabulary and a response the models' context is checked where
the models are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config.run_config import RunConfig
from engine.core import TRAJECTORY_KEY, ExternalResponse, ExternalResponses, Task, Trajectory
from engine.errors import RunDirectoryError, TaskError
from engine.store.manifest import is_gated
from engine.store.run_reader import read_run
from evaluators.external.rows import RowReader
from evaluators.tasks.registry import load_task
from evaluators.tasks.sources import local
from evaluators.tasks.sources.rows import label

_ASKED = (
    "task",
    "task_data",
    "question_column",
    "answer_column",
    "id_column",
    "prompt",
    "prompt_template",
)
_COLUMNS = [*TRAJECTORY_KEY, "prompt_token_ids", "token_ids", "finish_reason"]


def is_run(place: Path) -> bool:
    """True for a run directory, False for a file of responses. Raises TaskError for what is
    neither.
    """
    if (place / "run.json").is_file():
        return True
    if place.is_file() and local.is_data(place.name):
        return False
    what = (
        "is a folder without run.json" if place.is_dir()
        else "ends like no file that is read" if place.exists()
        else "does not exist"
    )  # fmt: skip
    raise TaskError(
        f"{label(place)} {what}: give a run directory, or a .jsonl, .json, .csv or .parquet file"
    )


def task_of(place: Path, config: RunConfig) -> Task | None:
    """The task that the responses at `place` answer, if the configuration names one.

    Raises TaskError where that is out of place: a run directory holds its problems; and what says
    how a task is read or graded says nothing without one.
    """
    asked = [
        name
        for name in _ASKED
        if name in config.model_fields_set and getattr(config, name) is not None
    ]
    if is_run(place):
        if asked:
            raise TaskError(
                f"{asked[0]} is {str(getattr(config, asked[0]))!r}, but {label(place)} is a run "
                "directory, "
                f"which holds its problems and prompts: leave {asked[0]} out"
            )
        return None
    if "task" in asked:
        return load_task(config)
    if needing := [*asked, *(["grader"] if config.grader else [])]:
        raise TaskError(
            f"{needing[0]} is {str(getattr(config, needing[0]))!r}, but no task is given: "
            f"say with --task what the responses answer, or leave {needing[0]} out"
        )
    return None


def read_external(
    place: Path,
    config: RunConfig,
    task: Task | None,
    tokenizer: Any,
    stop_token_ids: tuple[int, ...],
    context_length: int,
) -> ExternalResponses:
    """The responses at `place`, their keys unique, with the problems among those of `task` that
    they answer.

    The tokenizer is the pair's: it takes text, and renders the prompts of `task`. A response
    without a finish_reason has stopped by itself when its last id is one of stop_token_ids. Raises
    TaskError, RunDirectoryError; ModelError for a chat template of no use.
    """
    reader = RowReader(tokenizer, stop_token_ids, context_length, task)
    found = _of_run(place, config) if is_run(place) else _of_file(place, task, reader)
    _refuse_same_keys(found.responses)
    return found


def _of_run(place: Path, config: RunConfig) -> ExternalResponses:
    store = read_run(place)
    responses = tuple(
        _of_record(place, row)
        for part in store.response_parts(_COLUMNS)
        for row in part.to_pylist()
    )
    if not responses:
        raise RunDirectoryError(
            f"run directory {label(place)} holds no responses yet: nothing to score"
        )
    answered = {given.key.problem for given in responses}
    problems = tuple(problem for problem in store.problems() if problem.id in answered)
    return ExternalResponses(
        name=label(Path(place.resolve().name)),
        source=str(place),
        responses=responses,
        problems=problems,
        grader=config.grader or (store.grader if problems else "math"),
        gated=is_gated(store.manifest),
    )


def _of_record(place: Path, row: dict[str, Any]) -> ExternalResponse:
    key = Trajectory(*(row[name] for name in TRAJECTORY_KEY))
    where = f"{label(place)}: {key}"
    if not row["token_ids"] or not row["prompt_token_ids"]:
        raise RunDirectoryError(
            f"{where} has no tokens: have it made again, or give another run directory"
        )
    return ExternalResponse(
        key, row["prompt_token_ids"], row["token_ids"], row["finish_reason"] == "stop", where
    )


def _of_file(place: Path, task: Task | None, reader: RowReader) -> ExternalResponses:
    reading = local.read_path(place)
    responses = tuple(given for rows in filter(None, reading.tables) for given in reader.read(rows))
    if not responses:
        raise TaskError(f"{label(place)} holds no rows: give a row for each response")
    answered = {given.key.problem for given in responses}
    name = place.name[:-3] if place.name.lower().endswith(".gz") else place.name
    return ExternalResponses(
        name=label(Path(name).with_suffix("")),
        source=str(place),
        responses=responses,
        problems=tuple(problem for problem in task.problems if problem.id in answered)
        if task
        else (),
        grader=task.grader if task else "math",
        gated=task.gated if task else False,
        notes=(*(task.notes if task else ()), *reading.notes, *reader.notes),
    )


def _refuse_same_keys(responses: Sequence[ExternalResponse]) -> None:
    first: dict[Trajectory, ExternalResponse] = {}
    for given in responses:
        earlier = first.setdefault(given.key, given)
        if earlier is not given:
            raise TaskError(
                f"{earlier.where} and {given.where} are both {given.key}: "
                "number the responses to a problem in a column sample, or leave it out"
            )
