r"""Two answers -> a verdict, where their notation decides, or the question that math-verify is
asked.

Each rule puts right what math-verify would not see: `101_2`, `2:3:5`, a set that is no tuple, `840,
840`. Numbers are compared here, exactly. Where a text has two readings (`50\%` is 50, and 1/2),
math-verify is asked both.
"""

from __future__ import annotations

import re
from math import gcd
from typing import NamedTuple

from evaluators.grading.intervals import as_set
from evaluators.grading.latex import tidy
from evaluators.grading.numbers import are_equal, integer, rational
from evaluators.grading.units import PERCENT, has_letters, without_factor, without_unit
from evaluators.grading.verdict import Verdict

_WORDS = re.compile(r"[A-Za-z(][A-Za-z() ]*")
_NO_SOLUTION = frozenset(
    {"nosolution", "nosolutions", "norealsolution", "norealsolutions", "emptyset", "none"}
)
_IN_BASE = re.compile(r"\(?([\da-zA-Z]*\d[\da-zA-Z]*)\)?\s?_\s?(?:\{\s?\(?(\d+)\)?\s?\}|(\d))")
_DIGIT_LIST = re.compile(r"-?\d+(?:, ?-?\d+)+")
_AND = re.compile(r"\\text\s?\{\s?(?:and|or)\s?\}|\b(?:and|or)\b|,|;")
_COLUMN = re.compile(r"\\begin\{([pb]?matrix)\}([^&]*)\\end\{\1\}")
_SINGLE_POINT = re.compile(r"\\\{ ?(\(.*\)) ?\\\}")
_SHARE = re.compile(r"-?(?:0?\.\d+|0|1|\\frac.*|.*/.*)")
_CAPITALS = re.compile("[A-Z]{2,}")
_MARKS = (
    re.compile(r"(?<=[A-Za-z)}'])'"),
    re.compile(r"\^\s?\{?\s?(?:T|\\top)\b"),
    re.compile(r"^-?\d+,?\s?\\ldots\s?$"),
)
_TIME = re.compile(r"(?P<hour>\d{1,2})(?::(?P<minute>[0-5]\d))?(?: (?P<half>[ap]m))?")


class Question(NamedTuple):
    """Does a reading of the answer equal one of the gold answer? LaTeX without delimiters."""

    golds: tuple[str, ...]
    answers: tuple[str, ...]


def pose(gold: str, answer: str) -> Question | Verdict:
    """The verdict, or what math-verify has to be asked."""
    is_text, gold = r"\text" in gold, tidy(gold)
    answer = tidy(answer, has_thousands=not _DIGIT_LIST.fullmatch(gold))
    if gold == answer:
        return "correct"
    for decide in (
        _as_integers,
        _as_words,
        _as_marked,
        _as_times,
        _in_bases,
        _as_ratios,
        _as_lists,
    ):
        is_equal = decide(gold, answer)
        if is_equal is not None:
            return "correct" if is_equal else "wrong"
    if is_text and _WORDS.fullmatch(gold):
        return "wrong"
    question = _readings(gold, answer)
    golds, answers = ([rational(text) for text in side] for side in question)
    if None in golds or None in answers:
        return Question(*(tuple(map(_as_fraction, side)) for side in question))
    return "correct" if any(are_equal(g, a) for g in golds for a in answers if g and a) else "wrong"


def _as_fraction(text: str) -> str:
    r"""Exact numbers as math-verify reads them: `2 1/2` and `0.\overline{3}` are none to it."""
    number = rational(text)
    if number is None or number.is_rounded:
        return text
    return rf"\frac{{{number.value.numerator}}}{{{number.value.denominator}}}"


def _as_integers(gold: str, answer: str) -> bool | None:
    digits = integer(gold), integer(answer)
    return None if None in digits else digits[0] == digits[1]


def _as_words(gold: str, answer: str) -> bool | None:
    """Words are equal when their letters are; math-verify would multiply the letters."""
    said = [
        re.sub("[^a-z]", "", text.lower()) if _WORDS.fullmatch(text) else text
        for text in (gold, answer)
    ]
    said = [r"\emptyset" if text in _NO_SOLUTION else text for text in said]
    if _CAPITALS.fullmatch(gold) and _CAPITALS.fullmatch(answer):  # an order, or a name: no product
        return gold == answer
    return (
        True
        if said[0] == said[1] and (_WORDS.fullmatch(gold) or _WORDS.fullmatch(answer))
        else None
    )


def _as_marked(gold: str, answer: str) -> bool | None:
    """Primes, transposes and the dots of a list that goes on: math-verify reads on as if they were
    not there.
    """
    return (
        None
        if all(len(mark.findall(gold)) == len(mark.findall(answer)) for mark in _MARKS)
        else False
    )


def _as_times(gold: str, answer: str) -> bool | None:
    """`9:15` is a time of day and no ratio, for it would have been reduced; `3 pm` is not `3
    am`.
    """
    times = [_TIME.fullmatch(text) for text in (gold, answer)]
    if not times[0] or not (
        times[0]["half"] or gcd(int(times[0]["hour"]), int(times[0]["minute"] or 1)) > 1
    ):
        return None
    said = [time and (int(time["hour"]), int(time["minute"] or 0), time["half"]) for time in times]
    return said[0] == said[1]


def _in_bases(gold: str, answer: str) -> bool | None:
    """`101_2` equals itself, and 101 where the question gave the base; a gold answer of 5 it
    equals, too.
    """
    (digits, base), (given, given_base) = _based(gold), _based(answer)
    if base and given_base:
        return (digits, base) == (given, given_base)
    if base:
        return given == digits
    if given_base and integer(gold) is not None:
        return given == digits or str(_value(given, given_base)) == digits
    return None


def _based(text: str) -> tuple[str, int | None]:
    match = _IN_BASE.fullmatch(text)
    return (match[1].lower(), int(match[2] or match[3])) if match else (text.lower(), None)


def _value(digits: str, base: int) -> int | None:
    try:
        return int(digits, base)
    except ValueError:
        return None


def _as_ratios(gold: str, answer: str) -> bool | None:
    """`2:3:5` equals `4:6:10`; math-verify would divide from left to right."""
    ratios = [[rational(part.strip()) for part in text.split(":")] for text in (gold, answer)]
    if any(len(ratio) < 2 or not all(part and part.value for part in ratio) for ratio in ratios):
        return None
    parts = [[part.value for part in ratio if part] for ratio in ratios]
    return [part / parts[0][0] for part in parts[0]] == [part / parts[1][0] for part in parts[1]]


def _as_lists(gold: str, answer: str) -> bool | None:
    """`1,234` is a list where one is asked for; a set is no tuple or interval; a thing said twice
    is not it.
    """
    if _DIGIT_LIST.fullmatch(gold) and gold.replace(" ", "") == answer.replace(" ", ""):
        return True
    brackets = {_bracket(gold), _bracket(answer)}
    if "{" in brackets and brackets & {"(", "["}:
        return False
    return False if _repeats(answer) and not _repeats(gold) else None


def _bracket(text: str) -> str:
    r"""The bracket around all of a list: `(`, `[`, or `{` for `\{`; nothing when there is none."""
    text = re.sub(r"\\([{}])", r"\1", text) if text.startswith((r"\{", "(", "[")) else ""
    depth, is_list = 0, False
    for place, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        is_list = is_list or (char == "," and depth == 1)
        if depth == 0:
            return text[0] if place == len(text) - 1 and is_list else ""
    return ""


def _repeats(text: str) -> bool:
    members = [member.strip() for member in _AND.split(text)]
    is_plain = all(
        len(re.findall(r"[(\[{]", member)) == len(re.findall(r"[)\]}]", member))
        for member in members
    )
    return is_plain and len(set(members)) < len(members)


def _readings(gold: str, answer: str) -> Question:
    r"""Units left out. A sign that both have (`%`, degrees) is left out too. One that only one of
    them has is a unit or a factor; but where the gold answer is a share (1/2, 0.5, 1), the answer's
    `%` is a factor only.
    """
    is_number = not has_letters(without_unit(gold, is_number=True))
    gold, gold_factor = without_factor(without_unit(gold, is_number))
    answer, answer_factor = without_factor(without_unit(answer, is_number))
    if gold_factor == answer_factor:
        return Question(_forms(gold), _forms(answer))
    golds = (gold, gold_factor % gold) if gold_factor else _forms(gold)
    answers = (answer, answer_factor % answer) if answer_factor else _forms(answer)
    return Question(
        golds, answers[1:] if answer_factor == PERCENT and _SHARE.fullmatch(gold) else answers
    )


def _forms(text: str) -> tuple[str, ...]:
    """A column is also read as the point with its entries, an inequality as its set, a set of one
    point as that.
    """
    column, single = _COLUMN.fullmatch(text), _SINGLE_POINT.fullmatch(text)
    if single and _bracket(single[1]):
        return text, single[1]
    if column:
        entries = [entry.strip() for entry in column[2].split(r"\\") if entry.strip()]
        return text, f"({', '.join(entries)})"
    if (
        r"\pm" in text or r"\mp" in text
    ):  # both roots in one fraction, which math-verify cannot read
        signs = (
            text.replace(r"\pm", "+").replace(r"\mp", "-"),
            text.replace(r"\pm", "-").replace(r"\mp", "+"),
        )
        return (", ".join(signs),)
    described = as_set(text)
    return (text,) if described is None else (text, described)
