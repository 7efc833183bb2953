"""Rows as they come out of a file or a hub set, and how messages speak of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

_MAX_REASON_CHARS = 200
_MAX_NAME_CHARS = 60
_Item = TypeVar("_Item")


class Row(NamedTuple):
    """One row; `where` is for messages ("mine.csv, line 3"). Cells may be nested."""

    where: str
    cells: dict[str, Any]


class Reading(NamedTuple):
    """What a source holds: the rows of each of its tables (files, splits), and notes for the user,
    a line each.
    """

    tables: list[list[Row]]
    notes: list[str]


def numbered(cells: Iterable[dict[str, Any]], label: str) -> list[Row]:
    """Rows counted from 1."""
    return [Row(f"{label}, row {number}", row) for number, row in enumerate(cells, start=1)]


def meant(
    items: Sequence[_Item], name: Callable[[_Item], str], label: str
) -> tuple[list[_Item], list[str]]:
    """The splits or files to take: those called test where others are not, else all; a note if some
    are left out.
    """
    tests = [item for item in items if "test" in re.split(r"[\W_\d]+", name(item).lower())]
    if not tests or len(tests) == len(items):
        return list(items), []
    left_out = shown(name(item) for item in items if item not in tests)
    return tests, [f"{label}: read {shown(map(name, tests))}, left out {left_out}"]


def label(path: Path) -> str:
    """A path for messages: on one line whatever it is called."""
    text = str(path)
    return text if text.isprintable() else repr(text)[1:-1]


def shown(names: Iterable[str], most: int = 20) -> str:
    """Names for a message, in quotes: nobody knows what is in them."""
    quoted = [
        repr(name if len(name) <= _MAX_NAME_CHARS else f"{name[:_MAX_NAME_CHARS]}...")
        for name in names
    ]
    return ", ".join(quoted[:most]) + (", ..." if len(quoted) > most else "")


def one_line(error: BaseException) -> str:
    """An exception of another library in one short line."""
    text = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
    return text if len(text) <= _MAX_REASON_CHARS else f"{text[:_MAX_REASON_CHARS]}..."


def root_cause(error: BaseException) -> BaseException:
    """What an exception was raised from, if it says so."""
    return root_cause(error.__cause__) if error.__cause__ else error
