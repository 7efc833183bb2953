"""One row of given responses, cell by cell: what each column stands for, and what may be in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.core import ALL_DIRECTIONS
from engine.errors import TaskError
from evaluators.tasks.sources import columns
from evaluators.tasks.sources.distinct import MAX_ID_CHARS
from evaluators.tasks.sources.rows import Row

# By what each stands for; the first that is there is taken.
_USUAL: dict[str, Sequence[str]] = {
    "response ids": ("token_ids", "response_token_ids", "output_token_ids"),
    "response": ("response", "text", "output", "completion"),
    "finish_reason": ("finish_reason",),
    "prompt ids": ("prompt_token_ids",),
    "prompt": ("prompt",),
    "problem": (
        "problem_id",
        "problem",
        "id",
    ),  # a row with its own problem_id may call the question a problem
    "sample": ("sample",),
    "direction": ("direction",),
    "budget": ("budget",),
}
_MAX_INT32 = 2**31 - 1


def called(rows: Sequence[Row]) -> dict[str, str]:
    """By what it stands for, how a column of this table is called. Raises TaskError where two could
    be meant.
    """
    there = [(name,) for name in dict.fromkeys(name for row in rows for name in row.cells)]
    label = rows[0].where.rpartition(", ")[0]
    found = {role: columns.find(there, usual, None, role, label) for role, usual in _USUAL.items()}
    return {role: path[0] for role, path in found.items() if path}


class Cells:
    """One row, asked by what its columns stand for; `names` says what those are called here."""

    def __init__(self, row: Row, names: dict[str, str]) -> None:
        self.where = row.where
        self._row, self._names = row, names

    def has(self, *roles: str) -> bool:
        return all(role in self._names for role in roles)

    def _cell(self, role: str) -> Any:
        return self._row.cells.get(self._names[role]) if role in self._names else None

    def _wrong(self, role: str, what: str) -> TaskError:
        return TaskError(f"{self.where}: {self._names[role]!r} {what}")

    def ids(self, role: str) -> list[int] | None:
        """Token ids; None where there is nothing."""
        value = self._cell(role)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._wrong(
                role, f"is a {type(value).__name__}: token ids are a list of whole numbers >= 0"
            )
        for place, item in enumerate(value):
            if type(item) is not int or item < 0:
                raise self._wrong(
                    role, f"holds {item!r:.40} at place {place}: token ids are whole numbers >= 0"
                )
        return value

    def text(self, role: str) -> str | None:
        """Text as it is written, blanks at its ends too; None where there is nothing."""
        value = self._cell(role)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._wrong(
                role, f"is a {type(value).__name__}, not text: write it out as the model saw it"
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self._wrong(
                role, "is not valid Unicode (half of a surrogate pair): mend the text"
            ) from None
        return value

    def name(self, role: str) -> str | None:
        """What a problem is called; None where there is nothing."""
        try:
            value = columns.as_text(self._cell(role))
        except (TypeError, UnicodeEncodeError):
            raise self._wrong(role, "is no text or number that a problem may be called") from None
        if value and not (value.isprintable() and len(value) <= MAX_ID_CHARS):
            raise self._wrong(
                role,
                f"is no printable line of at most {MAX_ID_CHARS} characters: give the problem's id",
            )
        return value

    def number(self, role: str) -> int | None:
        """A whole number that fits into its column; None where there is nothing, or "unlimited"."""
        value = self._cell(role)
        if isinstance(value, str):  # a cell of CSV
            value = (
                None if value in ("", "unlimited") else int(value) if value.isdecimal() else value
            )
        if value is not None and not (type(value) is int and 0 <= value <= _MAX_INT32):
            raise self._wrong(
                role, f"is {value!r:.40}: give whole numbers >= 0, or leave the column out"
            )
        return value

    def finish_reason(self) -> str | None:
        return self._one_of("finish_reason", ("stop", "length"))

    def direction(self) -> str:
        direction = self._one_of("direction", ALL_DIRECTIONS)
        if direction is None:
            raise self._wrong(
                "direction", f"is empty: give {', '.join(ALL_DIRECTIONS)}, or leave the column out"
            )
        return direction

    def _one_of(self, role: str, known: Sequence[str]) -> str | None:
        value = self._cell(role)
        if value is not None and value != "" and value not in known:
            raise self._wrong(
                role, f"is {value!r:.40}: give {' or '.join(known)}, or leave the column out"
            )
        return value or None
