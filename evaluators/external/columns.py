"""One row of a file of external responses: the roles of its columns, and its cells, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.core import ALL_DIRECTIONS
from engine.errors import TaskError
from evaluators.tasks.sources import columns
from evaluators.tasks.sources.distinct import MAX_ID_CHARS
from evaluators.tasks.sources.rows import Row, table_label

# The usual names of each role; the first name that a table has is taken.
_USUAL_NAMES: dict[str, Sequence[str]] = {
    "response ids": ("token_ids", "response_token_ids", "output_token_ids"),
    "response": ("response", "text", "output", "completion"),
    "finish_reason": ("finish_reason",),
    "prompt ids": ("prompt_token_ids",),
    "prompt": ("prompt",),
    # problem_id comes first: in a row that has it, the column problem may hold the question.
    "problem": ("problem_id", "problem", "id"),
    "sample": ("sample",),
    "direction": ("direction",),
    "budget": ("budget",),
}
_MAX_INT32 = 2**31 - 1


def find_columns(rows: Sequence[Row]) -> dict[str, str]:
    """The columns of a table by their role.

    Args:
        rows: The rows of one table, at least one.

    Returns:
        The name of each role's column; a role without a column is left out.

    Raises:
        TaskError: Two columns fit one role.
    """
    paths = [(name,) for name in dict.fromkeys(name for row in rows for name in row.cells)]
    label = table_label(rows)
    names: dict[str, str] = {}
    for role, usual in _USUAL_NAMES.items():
        if path := columns.find(paths, usual, None, role, label):
            names[role] = path[0]
    return names


class Cells:
    """The cells of one row by their role, each checked when it is read.

    Args:
        row: The row.
        names: The name of each role's column, from `find_columns`.
    """

    def __init__(self, row: Row, names: dict[str, str]) -> None:
        self.where = row.where
        self._row, self._names = row, names

    def has(self, *roles: str) -> bool:
        """True when the table has a column for each of the roles."""
        return all(role in self._names for role in roles)

    def _cell(self, role: str) -> Any:
        return self._row.cells.get(self._names[role]) if role in self._names else None

    def _error(self, role: str, fault: str) -> TaskError:
        return TaskError(f"{self.where}: {self._names[role]!r} {fault}")

    def ids(self, role: str) -> list[int] | None:
        """Token ids; None for a missing cell.

        Raises:
            TaskError: The cell is no list of whole numbers >= 0.
        """
        value = self._cell(role)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self._error(
                role, f"is a {type(value).__name__}: token ids are a list of whole numbers >= 0"
            )
        for index, item in enumerate(value):
            if type(item) is not int or item < 0:
                raise self._error(
                    role, f"holds {item!r:.40} at place {index}: token ids are whole numbers >= 0"
                )
        return value

    def text(self, role: str) -> str | None:
        """Text with the white space around it; None for a missing cell.

        Raises:
            TaskError: The cell is no text, or no valid Unicode.
        """
        value = self._cell(role)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self._error(
                role, f"is a {type(value).__name__}, not text: write it out as the model saw it"
            )
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self._error(
                role, "is not valid Unicode (half of a surrogate pair): mend the text"
            ) from None
        return value

    def name(self, role: str) -> str | None:
        """The id of a problem; None for an empty cell.

        Raises:
            TaskError: The cell is no printable line of at most MAX_ID_CHARS characters.
        """
        try:
            value = columns.as_text(self._cell(role))
        except (TypeError, UnicodeEncodeError):
            raise self._error(role, "is no text or number that a problem may be called") from None
        if value and not (value.isprintable() and len(value) <= MAX_ID_CHARS):
            raise self._error(
                role,
                f"is no printable line of at most {MAX_ID_CHARS} characters: give the problem's id",
            )
        return value

    def number(self, role: str) -> int | None:
        """A whole number from 0 to 2**31 - 1; None for an empty cell and for "unlimited".

        Raises:
            TaskError: The cell is anything else.
        """
        value = self._cell(role)
        if value in ("", "unlimited"):
            return None
        if isinstance(value, str) and value.isdecimal():  # a cell of CSV
            value = int(value)
        if value is not None and not (type(value) is int and 0 <= value <= _MAX_INT32):
            raise self._error(
                role, f"is {value!r:.40}: give whole numbers >= 0, or leave the column out"
            )
        return value

    def finish_reason(self) -> str | None:
        """Why the response ended, "stop" or "length"; None for an empty cell.

        Raises:
            TaskError: The cell is anything else.
        """
        return self._one_of("finish_reason", ("stop", "length"))

    def direction(self) -> str:
        """The direction of the response's trajectory, one of ALL_DIRECTIONS.

        Raises:
            TaskError: The cell is empty, or anything else.
        """
        direction = self._one_of("direction", ALL_DIRECTIONS)
        if direction is None:
            raise self._error(
                "direction", f"is empty: give {', '.join(ALL_DIRECTIONS)}, or leave the column out"
            )
        return direction

    def _one_of(self, role: str, known: Sequence[str]) -> str | None:
        value = self._cell(role)
        if value is not None and value != "" and value not in known:
            raise self._error(
                role, f"is {value!r:.40}: give {' or '.join(known)}, or leave the column out"
            )
        return value or None
