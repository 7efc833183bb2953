r"""The graders by name: each compares a gold answer with an answer, and says what it is or what
math-verify is asked.

math      by value: 1/2, 0.5 and \frac{1}{2} are one answer; formulas go to math-verify
integer   plain integers only, as in AIME: 073 is 73, and 73.0 is wrong
choice    the one option that the answer names; two options, or none, are wrong
exact     the same text, but for case, white space, and how its characters are written
"""

from __future__ import annotations

from collections.abc import Callable

from engine.core import GraderName
from evaluators.grading.formula import Question, pose
from evaluators.grading.guess import GuessKind
from evaluators.grading.latex import undelimited, unwrapped
from evaluators.grading.notation import ascii_latex
from evaluators.grading.numbers import integer
from evaluators.grading.options import letter
from evaluators.grading.verdict import Verdict

Judge = Callable[[str, str], "Verdict | Question"]

# No sensible formula is longer, and a parser would choke on it.
MAX_FORMULA_CHARS = 2_000


def math(gold: str, answer: str) -> Verdict | Question:
    """By value. Two integers of any length are compared; anything else that is absurdly long is not
    read.
    """
    digits = _digits(gold), _digits(answer)
    if None not in digits:
        return _verdict(digits[0] == digits[1])
    return pose(gold, answer) if len(answer) <= MAX_FORMULA_CHARS else "ungradable"


def exact_integer(gold: str, answer: str) -> Verdict:
    """By the digits of two plain integers."""
    digits = _digits(answer)
    return _verdict(digits is not None and digits == _digits(gold))


def choice(gold: str, answer: str) -> Verdict:
    """By the letter of the option."""
    return _verdict(letter(answer) == letter(gold) is not None)


def exact(gold: str, answer: str) -> Verdict:
    """By the text."""
    return _verdict(_folded(gold) == _folded(answer))


JUDGES: dict[GraderName, Judge] = {
    "math": math,
    "integer": exact_integer,
    "choice": choice,
    "exact": exact,
}
# What a lenient reader would look for in a response without an answer.
GUESSES: dict[GraderName, GuessKind] = {
    "math": "number",
    "integer": "number",
    "choice": "letter",
    "exact": "words",
}


def _digits(text: str) -> str | None:
    return integer(unwrapped(undelimited(ascii_latex(text))).strip("\\$ "))


def _folded(text: str) -> str:
    text = unwrapped(undelimited(ascii_latex(text)).strip("\"'"))
    return " ".join(undelimited(text).split()).casefold()


def _verdict(is_equal: bool) -> Verdict:
    return "correct" if is_equal else "wrong"
