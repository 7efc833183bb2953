"""External responses from a run directory, or from a file with one row per response.

A file goes through the reader of task files (`local.py`), and its rows through `rows.py`. Whether
token ids fit the vocabulary and responses fit the context is checked where the models are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.config.run_config import RunConfig
from engine.core import (
    TRAJECTORY_KEY,
    ExternalResponse,
    ExternalResponses,
    Problem,
    Task,
    Trajectory,
)
from engine.errors import RunDirectoryError, TaskError
from engine.store.manifest import is_gated
from engine.store.run_reader import read_run
from evaluators.external.rows import RowReader
from evaluators.tasks.registry import load_task
from evaluators.tasks.sources import local
from evaluators.tasks.sources.rows import printable_path

_TASK_SETTINGS = (
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
    """True for a run directory, False for a file of responses.

    Raises:
        TaskError: The place is neither.
    """
    if (place / "run.json").is_file():
        return True
    if place.is_file() and local.is_data(place.name):
        return False
    raise TaskError(
        f"{printable_path(place)} {_fault(place)}: give a run directory, or a .jsonl, .json, .csv"
        " or .parquet file"
    )


def _fault(place: Path) -> str:
    if place.is_dir():
        return "is a folder without run.json"
    return "ends like no file that is read" if place.exists() else "does not exist"


def task_of(place: Path, config: RunConfig) -> Task | None:
    """The task that external responses answer; None if the configuration names none.

    Args:
        place: The run directory or file of the responses.
        config: The run's configuration.

    Raises:
        TaskError: The place is a run directory, which holds its own problems, and a setting of a
            task is given; or such a setting is given without a task.
    """
    settings = [
        name
        for name in _TASK_SETTINGS
        if name in config.model_fields_set and getattr(config, name) is not None
    ]
    if is_run(place):
        if settings:
            raise TaskError(
                f"{settings[0]} is {str(getattr(config, settings[0]))!r}, but"
                f" {printable_path(place)} is a run directory, which holds its problems and"
                f" prompts: leave {settings[0]} out"
            )
        return None
    if "task" in settings:
        return load_task(config)
    if config.grader:
        settings.append("grader")
    if settings:
        raise TaskError(
            f"{settings[0]} is {str(getattr(config, settings[0]))!r}, but no task is given: "
            f"say with --task what the responses answer, or leave {settings[0]} out"
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
    """The external responses at `place`, and the problems that they answer.

    Args:
        place: A run directory or a file.
        config: The run's configuration.
        task: The task that a file's responses answer, from `task_of`.
        tokenizer: The pair's tokenizer: encodes text, and renders the task's prompts.
        stop_token_ids: A response without a finish_reason stopped by itself when its last token is
            one of these.
        context_length: The pair's context length, in tokens.

    Raises:
        TaskError: The file cannot be read, a row lacks a prompt or a response, or two responses
            have one key.
        RunDirectoryError: The run directory cannot be read or holds no responses.
        ModelError: The pair's chat template cannot render the task's prompts.
    """
    if is_run(place):
        external = _external_run(place, config)
    else:
        reader = RowReader(tokenizer, stop_token_ids, context_length, task)
        external = _external_file(place, task, reader)
    _refuse_same_keys(external.responses)
    return external


def _external_run(place: Path, config: RunConfig) -> ExternalResponses:
    run = read_run(place)
    responses = tuple(
        _response_of_run(place, row)
        for part in run.response_parts(_COLUMNS)
        for row in part.to_pylist()
    )
    if not responses:
        raise RunDirectoryError(
            f"run directory {printable_path(place)} holds no responses yet: nothing to score"
        )
    problems = _select_answered(run.problems(), responses)
    return ExternalResponses(
        name=printable_path(Path(place.resolve().name)),
        source=str(place),
        responses=responses,
        problems=problems,
        grader=config.grader or (run.grader if problems else "math"),
        gated=is_gated(run.manifest),
    )


def _response_of_run(place: Path, row: dict[str, Any]) -> ExternalResponse:
    key = Trajectory(*(row[name] for name in TRAJECTORY_KEY))
    where = f"{printable_path(place)}: {key}"
    if not row["token_ids"] or not row["prompt_token_ids"]:
        raise RunDirectoryError(
            f"{where} has no tokens: have it made again, or give another run directory"
        )
    return ExternalResponse(
        key, row["prompt_token_ids"], row["token_ids"], row["finish_reason"] == "stop", where
    )


def _external_file(place: Path, task: Task | None, reader: RowReader) -> ExternalResponses:
    reading = local.read_path(place)
    responses = tuple(
        response for rows in filter(None, reading.tables) for response in reader.read(rows)
    )
    if not responses:
        raise TaskError(f"{printable_path(place)} holds no rows: give a row for each response")
    name = place.name[:-3] if place.name.lower().endswith(".gz") else place.name
    external = ExternalResponses(
        name=printable_path(Path(name).with_suffix("")),
        source=str(place),
        responses=responses,
        notes=(*reading.notes, *reader.notes),
    )
    if task is None:
        return external
    return replace(
        external,
        problems=_select_answered(task.problems, responses),
        grader=task.grader,
        gated=task.gated,
        notes=(*task.notes, *external.notes),
    )


def _select_answered(
    problems: Iterable[Problem], responses: Iterable[ExternalResponse]
) -> tuple[Problem, ...]:
    """The problems that have a response, in their order."""
    answered = {response.key.problem for response in responses}
    return tuple(problem for problem in problems if problem.id in answered)


def _refuse_same_keys(responses: Iterable[ExternalResponse]) -> None:
    first: dict[Trajectory, ExternalResponse] = {}
    for response in responses:
        earlier = first.setdefault(response.key, response)
        if earlier is not response:
            raise TaskError(
                f"{earlier.where} and {response.where} are both {response.key}: "
                "number the responses to a problem in a column sample, or leave it out"
            )
