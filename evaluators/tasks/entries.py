"""From the rows of a source to its distinct problems: what every task that is read from somewhere
does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from engine.config.run_config import RunConfig
from engine.errors import TaskError
from evaluators.tasks.prompts import unwrap
from evaluators.tasks.sources import columns
from evaluators.tasks.sources import resolve as source
from evaluators.tasks.sources.columns import Path
from evaluators.tasks.sources.distinct import Entry, distinct, identified
from evaluators.tasks.sources.gold import gold_answer, gold_of_solution
from evaluators.tasks.sources.rows import Row


class Schema(NamedTuple):
    """Usual names of the columns that a task needs; `others` are the wrong options of a multiple
    choice.
    """

    question: Sequence[str] = columns.QUESTION
    answer: Sequence[str] = columns.ANSWER
    id: Sequence[str] = columns.ID
    others: Sequence[str] = ()

    def __str__(self) -> str:
        """For messages: what a local copy must hold."""
        return (
            f"{', '.join([self.question[0], self.answer[0], *self.others])} and, if there is one,"
            f" {self.id[0]}"
        )


USUAL = Schema()


class Table(NamedTuple):
    """Where one table has what a Schema needs."""

    question: Path
    answer: Path
    id: Path | None
    others: tuple[Path, ...]


def read_entries(
    config: RunConfig,
    place: str,
    option: str,
    schema: Schema = USUAL,
    subset: str | None = None,
    gold: Callable[[Entry], str] = lambda entry: entry.answer,
) -> tuple[list[Entry], list[str]]:
    """The distinct problems at `place`, each with an id, and notes for the user.

    option is the setting that named the place, subset a configuration of a hub set (`source.read`),
    gold gives an entry's final gold answer. Columns that the configuration names go before the
    usual ones. Raises TaskError.
    """
    reading = source.read(place, option, str(schema), subset)
    found: list[Entry] = []
    for rows in filter(None, reading.tables):
        table = _table(rows, schema, config)
        found += [_entry(row, table) for row in rows]
    kept, repeats = distinct([entry._replace(answer=gold(entry)) for entry in found])
    kept, unnamed = identified(kept, config.id_column)
    return kept, [*reading.notes, *repeats, *unnamed]


def _table(rows: list[Row], schema: Schema, config: RunConfig) -> Table:
    label, there = rows[0].where.rpartition(", ")[0], columns.paths(rows)

    def needed(usual: Sequence[str], given: str | None, role: str) -> Path:
        path = columns.find(there, usual, given, role, label)
        if path is None:
            way_out = f"; say which is, with --{role}-column" if role in columns.ROLES else ""
            raise TaskError(
                f"{label}: none of its columns ({columns.names(there)}) is called like the"
                f" {role}{way_out}"
            )
        return path

    if options := columns.find(there, columns.OPTIONS, None, "options", label):
        raise TaskError(
            f"{label}: the options in its column {'.'.join(options)!r} would not be asked: write"
            " them into the questions, with their letters, drop the column, and give --grader"
            " choice"
        )
    return Table(
        needed(schema.question, config.question_column, "question"),
        needed(schema.answer, config.answer_column, "answer"),
        columns.find(there, schema.id, config.id_column, "id", label),
        tuple(needed([name], None, name) for name in schema.others),
    )


def _entry(row: Row, table: Table) -> Entry:
    others = tuple(_filled(row, path, columns.as_text) for path in table.others)
    answer = _filled(row, table.answer, columns.as_text if others else columns.answer_text)
    return Entry(
        row.where,
        None if table.id is None else _text(row, table.id, columns.as_text),
        unwrap(_filled(row, table.question, columns.question_text)),
        answer if others else _gold(row, table.answer, answer),
        others,
    )


def _gold(row: Row, path: Path, answer: str) -> str:
    if path[-1].strip().lower() != columns.SOLUTION:
        return gold_answer(answer)
    gold = gold_of_solution(answer)
    if gold is None:
        raise TaskError(
            rf"{row.where}: the solution holds no \boxed{{}}: say with --answer-column where the"
            r" answer is"
        )
    return gold


def _filled(row: Row, path: Path, read: Callable[[Any], str | None]) -> str:
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
