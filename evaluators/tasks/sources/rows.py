"""Rows of a file or a hub set, and the texts that name their places in messages."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

_MAX_REASON_CHARS = 200
_MAX_NAME_CHARS = 60
_Item = TypeVar("_Item")


class Row(NamedTuple):
    """One row of a table."""

    where: str
    """The row's place, for messages: "mine.csv, line 3"."""
    cells: dict[str, Any]
    """The cells by the name of their column; a cell may be a list or a struct."""


class Reading(NamedTuple):
    """The rows of a source."""

    tables: list[list[Row]]
    """The rows of each file or split."""
    notes: list[str]
    """What the user should know about the reading, one line each."""


def number_rows(cells: Iterable[dict[str, Any]], label: str) -> list[Row]:
    """Make rows of a table's cells, numbered from 1 in their places."""
    return [Row(f"{label}, row {number}", row) for number, row in enumerate(cells, start=1)]


def table_label(rows: Sequence[Row]) -> str:
    """The name of the table that holds these rows, for messages: their place without the row."""
    return rows[0].where.rpartition(", ")[0]


def select_test_split(
    items: Sequence[_Item], name: Callable[[_Item], str], label: str
) -> tuple[list[_Item], list[str]]:
    """Select the splits or files that have the word "test" in their name; all if none has it.

    Args:
        items: Splits or files of one source.
        name: Gives the name of an item.
        label: The name of the source, for the note.

    Returns:
        The selected items, and a note if some are left out.
    """
    tests = [item for item in items if "test" in re.split(r"[\W_\d]+", name(item).lower())]
    if not tests or len(tests) == len(items):
        return list(items), []
    left_out = quote_names(name(item) for item in items if item not in tests)
    return tests, [f"{label}: read {quote_names(map(name, tests))}, left out {left_out}"]


def printable_path(path: Path) -> str:
    """A path as one printable line, whatever characters it holds."""
    text = str(path)
    return text if text.isprintable() else repr(text)[1:-1]


def quote_names(names: Iterable[str], max_names: int = 20) -> str:
    """Quote, escape and shorten names of the user's data for a message."""
    quoted = [
        repr(name if len(name) <= _MAX_NAME_CHARS else f"{name[:_MAX_NAME_CHARS]}...")
        for name in names
    ]
    return ", ".join(quoted[:max_names]) + (", ..." if len(quoted) > max_names else "")


def error_line(error: BaseException) -> str:
    """The message of another library's exception as one short line."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if len(text) <= _MAX_REASON_CHARS else f"{text[:_MAX_REASON_CHARS]}..."


def root_cause(error: BaseException) -> BaseException:
    """The first exception in the chain of explicit causes (`raise ... from`)."""
    return root_cause(error.__cause__) if error.__cause__ else error
