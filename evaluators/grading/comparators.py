r"""The comparators of the graders, by name: each compares a gold answer with an answer.

    math      by value: 1/2, 0.5 and \frac{1}{2} are one answer; formulas go to math-verify
    integer   plain integers only, as in AIME: 073 is 73, and 73.0 is wrong
    choice    the one option that the answer names; two options, or none, are wrong
    exact     the same text, but for case, white space, and how its characters are written

A comparator returns a verdict, or the Question for math-verify that decides it.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.core import GraderName
from evaluators.grading.formula import Question, pose
from evaluators.grading.guess import GuessKind
from evaluators.grading.latex import strip_delimiters, strip_fonts
from evaluators.grading.notation import ascii_latex
from evaluators.grading.numbers import integer_digits
from evaluators.grading.options import option_letter
from evaluators.grading.verdict import Verdict

Comparator = Callable[[str, str], "Verdict | Question"]
"""Compares (gold answer, answer)."""

# No sensible formula is longer, and a parser would choke on it.
MAX_FORMULA_CHARS = 2_000


def compare_values(gold: str, answer: str) -> Verdict | Question:
    """Compare two answers by value.

    Integers of any length are compared by their digits. Any other answer of more than
    MAX_FORMULA_CHARS is "ungradable".
    """
    gold_digits, digits = _digits(gold), _digits(answer)
    if gold_digits is not None and digits is not None:
        return _verdict(gold_digits == digits)
    return pose(gold, answer) if len(answer) <= MAX_FORMULA_CHARS else "ungradable"


def compare_integers(gold: str, answer: str) -> Verdict:
    """Compare two plain integers by their digits."""
    digits = _digits(answer)
    return _verdict(digits is not None and digits == _digits(gold))


def compare_options(gold: str, answer: str) -> Verdict:
    """Compare the letters of two options."""
    letter = option_letter(answer)
    return _verdict(letter is not None and letter == option_letter(gold))


def compare_texts(gold: str, answer: str) -> Verdict:
    """Compare two texts without regard to case, white space and typesetting."""
    return _verdict(_fold(gold) == _fold(answer))


COMPARATORS: dict[GraderName, Comparator] = {
    "math": compare_values,
    "integer": compare_integers,
    "choice": compare_options,
    "exact": compare_texts,
}
GUESS_KINDS: dict[GraderName, GuessKind] = {
    "math": "number",
    "integer": "number",
    "choice": "letter",
    "exact": "words",
}
"""The kind of guess that is looked for in a response without an answer."""


def _digits(text: str) -> str | None:
    return integer_digits(strip_fonts(strip_delimiters(ascii_latex(text))).strip("\\$ "))


def _fold(text: str) -> str:
    text = strip_fonts(strip_delimiters(ascii_latex(text)).strip("\"'"))
    return " ".join(strip_delimiters(text).split()).casefold()


def _verdict(is_equal: bool) -> Verdict:
    return "correct" if is_equal else "wrong"
