r"""The gold answer in the text of a cell. Pure functions.

A gold answer is written bare, in a box, at the end of a worked solution, or behind GSM8K's `####`.
"""

from __future__ import annotations

import re

from evaluators.grading.extraction import last_boxed

_INTEGER = re.compile(r"0*(\d{1,3})(?:\.0*)?", re.ASCII)
_DECORATION = re.compile(r"\$|\\[()]|\^\{?\\circ\}?|\\circ|\\degree|\N{DEGREE SIGN}")
_GSM8K_END = re.compile(r"^####(.*)\Z", re.MULTILINE)


def gold_answer(cell: str) -> str:
    r"""The gold answer in the text of an answer column.

    A last line that starts with `####` holds the answer; else the answer is all of the text. A box
    around all of it is removed.
    """
    if match := _GSM8K_END.search(cell):
        cell = match[1]
    bare = cell.strip("$ \t\n")
    inside = last_boxed(bare)
    if inside is None:
        return cell.strip()
    is_all = re.fullmatch(r"\\boxed\s*\{\s*" + re.escape(inside) + r"\s*\}", bare)
    return inside if is_all else cell.strip()


def gold_of_solution(cell: str) -> str | None:
    """The answer of a worked solution: its last box or its `####` line; None without either."""
    return last_boxed(cell) or (gold_answer(cell) if _GSM8K_END.search(cell) else None)


def aime_integer(answer: str) -> str | None:
    r"""An AIME answer from 0 to 999 without leading zeros; None for anything else.

    Example:
        `073`, `$73^\circ$` and `73.0` are all `73`.
    """
    match = _INTEGER.fullmatch(_DECORATION.sub("", answer).strip())
    return str(int(match[1])) if match else None
