r"""The gold answer out of the cell that holds it: bare, boxed, at the end of a solution, behind
GSM8K's `####`.
"""

from __future__ import annotations

import re

from evaluators.grading.extraction import last_boxed

_INTEGER = re.compile(r"0*(\d{1,3})(?:\.0*)?", re.ASCII)
_DECORATION = re.compile(r"\$|\\[()]|\^\{?\\circ\}?|\\circ|\\degree|\N{DEGREE SIGN}")
_GSM8K_END = re.compile(r"^####(.*)\Z", re.MULTILINE)


def gold_answer(cell: str) -> str:
    r"""The answer in an answer column: what follows a last line's `####`, what a box holds that is
    all of the cell.
    """
    if match := _GSM8K_END.search(cell):
        cell = match[1]
    bare = cell.strip("$ \t\n")
    inside = last_boxed(bare)
    is_all = inside is not None and re.fullmatch(
        r"\\boxed\s*\{\s*" + re.escape(inside) + r"\s*\}", bare
    )
    return inside if inside is not None and is_all else cell.strip()


def gold_of_solution(cell: str) -> str | None:
    """The answer at the end of a worked solution: its last box or `####` line; None without one."""
    return last_boxed(cell) or (gold_answer(cell) if _GSM8K_END.search(cell) else None)


def aime_integer(answer: str) -> str | None:
    r"""An AIME answer without leading zeros, 0 to 999 (of `073`, `$73^\circ$`, `73.0`); None for
    anything else.
    """
    match = _INTEGER.fullmatch(_DECORATION.sub("", answer).strip())
    return str(int(match[1])) if match else None
