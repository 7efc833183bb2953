"""Rows of a source -> its distinct problems, for every task set that is not embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.config.run_config import RunConfig
from engine.errors import TaskError
from evaluators.tasks.prompts import strip_prompt
from evaluators.tasks.sources import columns, resolve
from evaluators.tasks.sources.columns import Path
from evaluators.tasks.sources.distinct import Entry, deduplicate, identify
from evaluators.tasks.sources.gold import gold_answer, gold_of_solution
from evaluators.tasks.sources.rows import Row, table_label


class Schema(NamedTuple):
    """Usual names of the columns that a task needs, the first choice first."""

    question: Sequence[str] = columns.QUESTION
    answer: Sequence[str] = columns.ANSWER
    id: Sequence[str] = columns.ID
    others: Sequence[str] = ()
    """Multiple choice only: the columns of the wrong options, each required under its one name."""

    def __str__(self) -> str:
        """The columns that a local copy must hold, for messages."""
        return (
            f"{', '.join([self.question[0], self.answer[0], *self.others])} and, if there is one,"
            f" {self.id[0]}"
        )


DEFAULT_SCHEMA = Schema()


class TableColumns(NamedTuple):
    """The columns of one table that hold what a Schema needs."""

    question: Path
    answer: Path
    id: Path | None
    others: tuple[Path, ...]


def read_entries(
    config: RunConfig,
    place: str,
    option: str,
    schema: Schema = DEFAULT_SCHEMA,
    subset: str | None = None,
    gold: Callable[[Entry], str] = lambda entry: entry.answer,
) -> tuple[list[Entry], list[str]]:
    """The distinct problems of a source, each with an id.

    Args:
        config: The run's configuration; the columns that it names go before the usual ones.
        place: Path or hub id of the source.
        option: The setting that named the place, for messages.
        schema: Usual names of the columns.
        subset: A configuration of a hub set, or a part of the file names of a folder.
        gold: Gives the final gold answer of an entry.

    Returns:
        The entries, and notes for the user, one line each.

    Raises:
        TaskError: The source cannot be read, a column or cell is missing, or two rows ask the same
            question with different gold answers.
    """
    reading = resolve.read(place, option, str(schema), subset)
    entries: list[Entry] = []
    for rows in filter(None, reading.tables):
        table = _find_columns(rows, schema, config)
        entries += [_entry(row, table) for row in rows]
    entries = [entry._replace(answer=gold(entry)) for entry in entries]
    entries, repeat_notes = deduplicate(entries)
    entries, id_notes = identify(entries, config.id_column)
    return entries, [*reading.notes, *repeat_notes, *id_notes]


def _find_columns(rows: list[Row], schema: Schema, config: RunConfig) -> TableColumns:
    label, paths = table_label(rows), columns.paths(rows)

    def require(usual: Sequence[str], given: str | None, role: str) -> Path:
        path = columns.find(paths, usual, given, role, label)
        if path is None:
            way_out = f"; say which is, with --{role}-column" if role in columns.ROLES else ""
            raise TaskError(
                f"{label}: none of its columns ({columns.names(paths)}) is called like the"
                f" {role}{way_out}"
            )
        return path

    if options := columns.find(paths, columns.OPTIONS, None, "options", label):
        raise TaskError(
            f"{label}: the options in its column {'.'.join(options)!r} would not be asked: write"
            " them into the questions, with their letters, drop the column, and give --grader"
            " choice"
        )
    return TableColumns(
        require(schema.question, config.question_column, "question"),
        require(schema.answer, config.answer_column, "answer"),
        columns.find(paths, schema.id, config.id_column, "id", label),
        tuple(require([name], None, name) for name in schema.others),
    )


def _entry(row: Row, table: TableColumns) -> Entry:
    others = tuple(_required_text(row, path, columns.as_text) for path in table.others)
    answer = _required_text(row, table.answer, columns.as_text if others else columns.answer_text)
    return Entry(
        row.where,
        None if table.id is None else _text(row, table.id, columns.as_text),
        strip_prompt(_required_text(row, table.question, columns.question_text)),
        answer if others else _gold(row, table.answer, answer),
        others,
    )


def _gold(row: Row, path: Path, answer: str) -> str:
    """The gold answer in the text of an answer column or a solution column."""
    if path[-1].strip().lower() != columns.SOLUTION:
        return gold_answer(answer)
    gold = gold_of_solution(answer)
    if gold is None:
        raise TaskError(
            rf"{row.where}: the solution holds no \boxed{{}}: say with --answer-column where the"
            r" answer is"
        )
    return gold


def _required_text(row: Row, path: Path, read: Callable[[Any], str | None]) -> str:
    text = _text(row, path, read)
    if text is None:
        raise TaskError(f"{row.where}: {'.'.join(path)!r} is empty")
    return text


def _text(row: Row, path: Path, read: Callable[[Any], str | None]) -> str | None:
    try:
        return read(columns.cell(row, path))
    except TypeError as error:
        raise TaskError(f"{row.where}: {'.'.join(path)!r} is {error}") from None
    except UnicodeEncodeError:
        raise TaskError(
            f"{row.where}: {'.'.join(path)!r} is not valid Unicode (half of a surrogate pair)"
        ) from None
