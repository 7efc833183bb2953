r"""The text by which a majority vote tells answers apart: one for all spellings of a number or
formula.

`$\dfrac12$`, `0.50` and `1/2` are one answer; `1{,}000` and `1000`; `(B)` and `b`. Nothing is
calculated with letters: `2x` and `x + x`, equal and written differently, vote apart. Right answers
are one vote however they are written, so what is left of this can only favour them.
"""

from __future__ import annotations

import re

from engine.core import GraderName
from evaluators.grading.latex import tidy
from evaluators.grading.numbers import integer_digits, parse_rational
from evaluators.grading.options import option_letter

_LETTER = re.compile(r"\(?([A-Za-z])\)?")
# What is longer is no answer that anybody gives twice.
_MAX_CHARS = 2_000


def canonical(answer: str, grader: GraderName = "math") -> str:
    """The same text for answers that differ in spelling only; in multiple choice, that name the
    same option.
    """
    if len(answer) > _MAX_CHARS:
        return answer
    if grader == "choice" and (option := option_letter(answer)):
        return option
    text = integer_digits(answer) or tidy(answer)
    if (number := parse_rational(text)) is not None:
        return str(number.value)
    if single := _LETTER.fullmatch(text):
        return single[1].upper()
    return integer_digits(text) or re.sub(r"\s", "", text)
