"""The roles of a table's columns (question, answer, id), and the text of a cell. Pure functions.

The usual names cover the schemas of published data sets. Names are compared without regard to case,
and `_`, `-` and spaces are the same. A path with dots leads into a struct, which may also be
written as a JSON string (`reward_model.ground_truth`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from engine.errors import TaskError
from evaluators.tasks.sources.rows import Row, quote_names

Path = tuple[str, ...]
"""The name of a column, and the names of the fields that lead into its structs."""

# The first name that a table has is taken: a bare problem before one inside a prompt, an answer
# before a solution.
QUESTION = (
    "problem", "question", "extra_info.raw_problem", "raw_problem", "extra_info.question", "prompt",
    "query",
)  # fmt: skip
ANSWER = (
    "answer", "final_answer", "gold", "gold_answer", "ground_truth", "target",
    "reward_model.ground_truth", "expected_answer", "reference_answer", "solution",
)  # fmt: skip
ID = ("id", "problem_id", "unique_id", "uid", "record_id", "question_id", "problem_idx")
SOLUTION = "solution"
# A table with such a column asks multiple choice: its question column lacks the options.
OPTIONS = ("choices", "options")
ROLES = ("question", "answer", "id")
"""The roles for which the user may name a column."""

_MAX_DEPTH = 4
_EXACT_FLOAT = 2**53  # below it, every integer has a float of its own


def paths(rows: Iterable[Row]) -> list[Path]:
    """The columns of a table and the paths into its structs, in order of appearance."""
    return list(dict.fromkeys(path for row in rows for path in _walk(row.cells, ())))


def find(
    columns: Sequence[Path], usual: Sequence[str], given: str | None, role: str, label: str
) -> Path | None:
    """The column of a role: the one that the user names, else the first usual one.

    Args:
        columns: The paths of a table.
        usual: Usual names of the role, the first choice first.
        given: The name that the user gives; None to look for the usual names.
        role: "question", "answer", "id" or another noun, for messages.
        label: The table, for messages.

    Returns:
        The path of the column; None if the table has no usual one.

    Raises:
        TaskError: The table does not have the user's column, or two columns fit the name.
    """
    matches = _find_usual(columns, usual) if given is None else _find_named(columns, given)
    if given is not None and not matches:
        raise TaskError(
            f"{role}_column is {given!r}: {label} has no such column; it has {names(columns)}"
        )
    if len(matches) > 1:
        way_out = f"say which with --{role}-column" if role in ROLES else "keep one"
        raise TaskError(f"{label}: the columns {names(matches)} could all be the {role}: {way_out}")
    return matches[0] if matches else None


def names(columns: Iterable[Path]) -> str:
    """The names of columns with dots, quoted for a message."""
    return quote_names(".".join(path) for path in columns)


def cell(row: Row, path: Path) -> Any:
    """The cell at a path; None where the row has none."""
    value: Any = row.cells
    for name in path:
        value = _struct(value).get(name)
    return value


def as_text(value: Any) -> str | None:
    """The text of a cell without white space around it; None for an empty cell.

    A number is written in full and without trailing zeros: 73.0 is "73". A list of one item is
    that item.

    Raises:
        TypeError: The cell is bytes, a struct or a longer list.
        UnicodeEncodeError: The text holds half of a surrogate pair, so it cannot be stored.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() and abs(value) < _EXACT_FLOAT else value
    if isinstance(value, Decimal):
        value = format(value.normalize(), "f")
    if isinstance(value, (bytes, dict, list, tuple)):
        raise TypeError(f"a {type(value).__name__}, not text or a number")
    text = "" if value is None else str(value).replace("\r\n", "\n").replace("\r", "\n").strip()
    text.encode()
    return text or None


def question_text(value: Any) -> str | None:
    """The question in a cell: text, or a chat of one message, which may be written as JSON.

    Raises:
        TypeError: The cell is a chat of several messages, or `as_text` refuses it.
        UnicodeEncodeError: The text holds half of a surrogate pair.
    """
    chat = _parse_json(value) if isinstance(value, str) else value
    if not _is_chat(chat):
        return as_text(value)
    if len(chat) > 1:
        raise TypeError(
            f"a chat of {len(chat)} messages: one message of the user is asked, and nothing "
            "left out"
        )
    message = chat[0]
    return as_text(message["content"]) if message.get("role", "user") == "user" else None


def answer_text(value: Any) -> str | None:
    """The answer in a cell: text, a number, or a list of one text, which may be written as JSON.

    Raises:
        TypeError: `as_text` refuses the cell.
        UnicodeEncodeError: The text holds half of a surrogate pair.
    """
    if isinstance(value, str) and value.startswith('["'):
        answers = _parse_json(value)
        if isinstance(answers, list) and len(answers) == 1:
            value = answers
    return as_text(value)


def _is_chat(value: Any) -> bool:
    if not isinstance(value, list) or not value:
        return False
    return all(isinstance(message, dict) and "content" in message for message in value)


def _walk(value: Any, path: Path) -> Iterable[Path]:
    """The paths below `path`, to a depth of _MAX_DEPTH; those of empty fields are left out."""
    for name, inner in _struct(value).items():
        if inner is not None or not path:
            yield (*path, name)
        if len(path) + 1 < _MAX_DEPTH:
            yield from _walk(inner, (*path, name))


def _find_usual(columns: Sequence[Path], usual: Sequence[str]) -> list[Path]:
    """The columns with the first of the usual names that the table has."""
    for name in usual:
        if matches := _matches(columns, name):
            return matches
    return []


def _find_named(columns: Sequence[Path], name: str) -> list[Path]:
    """The columns with exactly this name, else those whose name differs only in its spelling."""
    exact = [path for path in columns if ".".join(path) == name]
    return exact or _matches(columns, name)


def _matches(columns: Iterable[Path], name: str) -> list[Path]:
    return [path for path in columns if _fold(".".join(path)) == _fold(name)]


def _fold(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _struct(value: Any) -> dict[str, Any]:
    """The fields of a struct, which may be written as JSON; none for any other value."""
    if isinstance(value, str) and value.startswith("{"):
        value = _parse_json(value)
    return value if isinstance(value, dict) else {}


def _parse_json(text: str) -> Any:
    """The list or struct that a text holds; None if it holds none."""
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
