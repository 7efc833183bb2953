r"""The canonical text of an answer, by which a majority vote tells answers apart.

`$\dfrac12$`, `0.50` and `1/2` have the same canonical text; so have `1{,}000` and `1000`, and
`(B)` and `b`. This is not algebra: `2x` and `x + x` are equal but vote as two answers. A correct
answer is recognised by its verdict and not by its text, so an equality that is missed here splits
the votes of wrong answers only.
"""

from __future__ import annotations

import re

from engine.core import GraderName
from evaluators.grading.latex import tidy
from evaluators.grading.numbers import integer_digits, parse_rational
from evaluators.grading.options import option_letter

_LETTER = re.compile(r"\(?([A-Za-z])\)?")
# Nobody gives a longer answer twice.
_MAX_CHARS = 2_000


def canonical_text(answer: str, grader: GraderName = "math") -> str:
    """The same text for answers that differ in spelling only.

    Args:
        answer: The answer that was extracted from a response.
        grader: With "choice", answers that name the same option have the same text.
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
