r"""Two answers -> a verdict where their notation decides it, else a Question for math-verify.

Each rule decides a notation that math-verify misreads: `101_2`, `2:3:5`, a set beside a tuple, a
list that repeats itself. Numbers are compared here, exactly. A text with two readings (`50\%` is 50
and 1/2) puts both into the question.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from math import gcd
from typing import NamedTuple

from evaluators.grading.intervals import as_set
from evaluators.grading.latex import tidy
from evaluators.grading.numbers import are_equal, integer_digits, parse_rational
from evaluators.grading.units import PERCENT, has_letters, split_factor, strip_unit
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
    """Asks math-verify whether a reading of the answer equals a reading of the gold answer."""

    golds: tuple[str, ...]
    """Readings of the gold answer: LaTeX without delimiters."""
    answers: tuple[str, ...]
    """Readings of the answer."""


def pose(gold: str, answer: str) -> Question | Verdict:
    """Decide by notation whether an answer is right, or pose the question for math-verify."""
    is_text, gold = r"\text" in gold, tidy(gold)
    answer = tidy(answer, has_thousands=not _DIGIT_LIST.fullmatch(gold))
    if gold == answer:
        return "correct"
    for compare in _RULES:
        is_equal = compare(gold, answer)
        if is_equal is not None:
            return "correct" if is_equal else "wrong"
    if is_text and _WORDS.fullmatch(gold):
        return "wrong"
    question = _readings(gold, answer)
    golds = [parse_rational(text) for text in question.golds]
    answers = [parse_rational(text) for text in question.answers]
    if None in golds or None in answers:
        return Question(*(tuple(map(_to_fraction, readings)) for readings in question))
    is_equal = any(are_equal(g, a) for g in golds for a in answers if g and a)
    return "correct" if is_equal else "wrong"


def _to_fraction(text: str) -> str:
    r"""An exact number as a fraction: math-verify does not read `2 1/2` and `0.\overline{3}`."""
    number = parse_rational(text)
    if number is None or number.is_rounded:
        return text
    return rf"\frac{{{number.value.numerator}}}{{{number.value.denominator}}}"


def _compare_integers(gold: str, answer: str) -> bool | None:
    gold_digits, digits = integer_digits(gold), integer_digits(answer)
    return None if gold_digits is None or digits is None else gold_digits == digits


def _compare_words(gold: str, answer: str) -> bool | None:
    """Words are equal when their letters are; math-verify would multiply the letters."""
    if _CAPITALS.fullmatch(gold) and _CAPITALS.fullmatch(answer):  # an order, or a name: no product
        return gold == answer
    has_words = _WORDS.fullmatch(gold) or _WORDS.fullmatch(answer)
    return True if has_words and _letters(gold) == _letters(answer) else None


def _letters(text: str) -> str:
    r"""The letters of words, `\emptyset` for words that mean it; any other text unchanged."""
    letters = re.sub("[^a-z]", "", text.lower()) if _WORDS.fullmatch(text) else text
    return r"\emptyset" if letters in _NO_SOLUTION else letters


def _compare_marks(gold: str, answer: str) -> bool | None:
    """Primes, transposes and the dots of an unfinished list count; math-verify ignores them."""
    is_same = all(len(mark.findall(gold)) == len(mark.findall(answer)) for mark in _MARKS)
    return None if is_same else False


def _compare_times(gold: str, answer: str) -> bool | None:
    """`3 pm` is not `3 am`; `9:15` is a time of day, since a ratio would be reduced."""
    gold_time, time = _TIME.fullmatch(gold), _TIME.fullmatch(answer)
    if not gold_time or not _is_time_of_day(gold_time):
        return None
    return time is not None and _clock(gold_time) == _clock(time)


def _is_time_of_day(time: re.Match[str]) -> bool:
    return bool(time["half"]) or gcd(int(time["hour"]), int(time["minute"] or 1)) > 1


def _clock(time: re.Match[str]) -> tuple[int, int, str | None]:
    return int(time["hour"]), int(time["minute"] or 0), time["half"]


def _compare_bases(gold: str, answer: str) -> bool | None:
    """`101_2` equals itself, 101 where the question gave the base, and a gold answer of 5."""
    (gold_digits, gold_base), (digits, base) = _split_base(gold), _split_base(answer)
    if gold_base and base:
        return (gold_digits, gold_base) == (digits, base)
    if gold_base:
        return digits == gold_digits
    if base and integer_digits(gold) is not None:
        return digits == gold_digits or str(_value(digits, base)) == gold_digits
    return None


def _split_base(text: str) -> tuple[str, int | None]:
    """`101_2` -> (`101`, 2); the text and None where it names no base."""
    match = _IN_BASE.fullmatch(text)
    return (match[1].lower(), int(match[2] or match[3])) if match else (text.lower(), None)


def _value(digits: str, base: int) -> int | None:
    try:
        return int(digits, base)
    except ValueError:
        return None


def _compare_ratios(gold: str, answer: str) -> bool | None:
    """`2:3:5` equals `4:6:10`; math-verify would divide from left to right."""
    gold_ratio, ratio = _reduce_ratio(gold), _reduce_ratio(answer)
    return None if gold_ratio is None or ratio is None else gold_ratio == ratio


def _reduce_ratio(text: str) -> list[Fraction] | None:
    """The parts of a ratio divided by the first; None for any other text."""
    parts = [parse_rational(part.strip()) for part in text.split(":")]
    values = [part.value for part in parts if part and part.value]
    if len(parts) < 2 or len(values) < len(parts):
        return None
    return [value / values[0] for value in values]


def _compare_lists(gold: str, answer: str) -> bool | None:
    """Lists are compared as lists.

    `1,234` is a list where the gold answer is one; a set is no tuple or interval; and an answer
    that repeats a member is wrong where the gold answer repeats none.
    """
    if _DIGIT_LIST.fullmatch(gold) and gold.replace(" ", "") == answer.replace(" ", ""):
        return True
    brackets = {_bracket(gold), _bracket(answer)}
    if "{" in brackets and brackets & {"(", "["}:
        return False
    return False if _repeats(answer) and not _repeats(gold) else None


_RULES: tuple[Callable[[str, str], bool | None], ...] = (
    _compare_integers,
    _compare_words,
    _compare_marks,
    _compare_times,
    _compare_bases,
    _compare_ratios,
    _compare_lists,
)
"""Each compares (gold answer, answer), or returns None. The first that does not decides."""


def _bracket(text: str) -> str:
    r"""The bracket around all of a list: `(`, `[`, or `{` for `\{`; "" when there is none."""
    text = re.sub(r"\\([{}])", r"\1", text) if text.startswith((r"\{", "(", "[")) else ""
    depth, is_list = 0, False
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        is_list = is_list or (char == "," and depth == 1)
        if depth == 0:
            return text[0] if index == len(text) - 1 and is_list else ""
    return ""


def _repeats(text: str) -> bool:
    """True for a list in which a member stands twice."""
    members = [member.strip() for member in _AND.split(text)]
    is_plain = all(
        len(re.findall(r"[(\[{]", member)) == len(re.findall(r"[)\]}]", member))
        for member in members
    )
    return is_plain and len(set(members)) < len(members)


def _readings(gold: str, answer: str) -> Question:
    r"""The readings of two answers, without units.

    A sign that both have (`%`, degrees) is left out, too. A sign that only one of them has may be a
    unit or a factor, so that answer has two readings. But where the gold answer is a share (1/2,
    0.5, 1), the answer's `%` is a factor only.
    """
    is_number = not has_letters(strip_unit(gold, is_number=True))
    gold, gold_factor = split_factor(strip_unit(gold, is_number))
    answer, answer_factor = split_factor(strip_unit(answer, is_number))
    if gold_factor == answer_factor:
        return Question(_forms(gold), _forms(answer))
    golds = (gold, gold_factor % gold) if gold_factor else _forms(gold)
    answers = (answer, answer_factor % answer) if answer_factor else _forms(answer)
    if answer_factor == PERCENT and _SHARE.fullmatch(gold):
        answers = answers[1:]
    return Question(golds, answers)


def _forms(text: str) -> tuple[str, ...]:
    r"""The readings of a formula.

    A column is also the point with its entries, a set of one point that point, and an inequality
    the set that it describes. A formula with `\pm` is the list of its two values.
    """
    column, single = _COLUMN.fullmatch(text), _SINGLE_POINT.fullmatch(text)
    if single and _bracket(single[1]):
        return text, single[1]
    if column:
        entries = [entry.strip() for entry in column[2].split(r"\\") if entry.strip()]
        return text, f"({', '.join(entries)})"
    if r"\pm" in text or r"\mp" in text:  # math-verify does not read them inside a fraction
        upper = text.replace(r"\pm", "+").replace(r"\mp", "-")
        lower = text.replace(r"\pm", "-").replace(r"\mp", "+")
        return (f"{upper}, {lower}",)
    intervals = as_set(text)
    return (text,) if intervals is None else (text, intervals)
