"""Which column is which, over the schemas that are around, and what a cell says as text. Pure
functions.

Names are compared without regard to case, and `_`, `-` and spaces are one. A path with dots goes
into structs, also where a struct is written as a JSON string (`reward_model.ground_truth`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from engine.errors import TaskError
from evaluators.tasks.sources.rows import Row, shown

Path = tuple[str, ...]

# The first that is there is taken: a bare problem before one with a prompt around it, an answer
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
# A question with these is not the whole question.
OPTIONS = ("choices", "options")
ROLES = ("question", "answer", "id")  # which the user may name a column for

_MAX_DEPTH = 4
_EXACT_FLOAT = 2**53  # every integer below is a float of its own


def paths(rows: Iterable[Row]) -> list[Path]:
    """Every column of a table, and every path into its structs that leads somewhere."""
    found: dict[Path, None] = {}
    for row in rows:
        for path in _walk(row.cells, ()):
            found[path] = None
    return list(found)


def find(
    columns: Sequence[Path], usual: Sequence[str], given: str | None, role: str, label: str
) -> Path | None:
    """The column `given` by the user, or the first of the `usual` ones; None if none of those is
    there.

    role is "question", "answer", "id", ... and label the table, for messages. Raises TaskError for
    a given column that is not there, and where two columns fit.
    """
    if given is not None:
        fitting = [path for path in columns if ".".join(path) == given] or _fitting(columns, given)
        if not fitting:
            raise TaskError(
                f"{role}_column is {given!r}: {label} has no such column; it has {names(columns)}"
            )
    else:
        fitting = next((fits for name in usual if (fits := _fitting(columns, name))), [])
    if len(fitting) > 1:
        way_out = f"say which with --{role}-column" if role in ROLES else "keep one"
        raise TaskError(f"{label}: the columns {names(fitting)} could all be the {role}: {way_out}")
    return fitting[0] if fitting else None


def names(columns: Iterable[Path]) -> str:
    """Columns as one writes them, for messages."""
    return shown(".".join(path) for path in columns)


def cell(row: Row, path: Path) -> Any:
    """The cell at a path; None where the row has none."""
    value: Any = row.cells
    for name in path:
        value = _struct(value).get(name)
    return value


def as_text(value: Any) -> str | None:
    """A cell as text, stripped; 73.0 is "73"; None where there is nothing. Raises TypeError for
    lists and structs.
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
    text.encode()  # a lone surrogate cannot be stored: UnicodeEncodeError
    return text or None


def question_text(value: Any) -> str | None:
    """The question in a cell: text, or a chat of one message."""
    chat = _parsed(value) if isinstance(value, str) else value
    if (
        isinstance(chat, list)
        and chat
        and all(isinstance(turn, dict) and "content" in turn for turn in chat)
    ):
        if len(chat) > 1:
            raise TypeError(
                f"a chat of {len(chat)} messages: one message of the user is asked, and nothing "
                "left out"
            )
        value = chat[0]["content"] if chat[0].get("role", "user") == "user" else None
    return as_text(value)


def answer_text(value: Any) -> str | None:
    """The answer in a cell: text, a number, or a list of one of them, which may be written as
    JSON.
    """
    listed = _parsed(value) if isinstance(value, str) and value.startswith('["') else value
    return as_text(listed if isinstance(listed, list) and len(listed) == 1 else value)


def _walk(value: Any, path: Path) -> Iterable[Path]:
    for name, inner in _struct(value).items():
        if inner is not None or not path:
            yield (*path, name)
        if len(path) + 1 < _MAX_DEPTH:
            yield from _walk(inner, (*path, name))


def _fitting(columns: Iterable[Path], name: str) -> list[Path]:
    return [path for path in columns if _folded(".".join(path)) == _folded(name)]


def _folded(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def _struct(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value.startswith("{"):
        value = _parsed(value)
    return value if isinstance(value, dict) else {}


def _parsed(text: str) -> Any:
    if not text.startswith(("{", "[")):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
