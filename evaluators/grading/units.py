r"""A quantity -> the number, and what it is counted in. Pure; a unit is left out of the comparison, not converted.

5 apples   5\text{ cm}^2   9.8\,\mathrm{m/s^2}   \$5      only the number counts
50\%   60^\circ                                           the sign is a unit, and a factor
5x   2 pm   5 or more                                     no unit: a variable, another number, a condition
"""

from __future__ import annotations

import re

_TEXT = r"\\(?:text(?:rm|bf|it|sf|normal)?|math(?:rm|bf|it|sf)|mbox|operatorname)\s?\{(?:[^{}]|\{[^{}]*\})*\}"
_POWER = r"(?:\s?\^\s?(?:\{[-\d ]*\}|-?\d))?"
_SET_IN_TEXT = rf"(?:{_TEXT}|\\frac\s?\{{{_TEXT}{_POWER}\}}\s?\{{{_TEXT}{_POWER}\}}){_POWER}"
_WORD = rf"(?<![A-Za-z\\])(?:[A-Za-z]{{2,}}|(?<=[ /])[mgshlLJKNVWAC])(?![A-Za-z]){_POWER}"
_BETWEEN = r"(?:\s?(?:/|\*|\\cdot)\s?|\s)?"
# What may stand before a unit: the end of a term, not an operator, an index or an equals sign.
_TERM = r"(?<=[\w)}\]!.])"
_UNIT_IN_TEXT = re.compile(rf"{_TERM}\s?{_SET_IN_TEXT}(?:{_BETWEEN}{_SET_IN_TEXT}){{0,5}}$")
_UNIT_IN_WORDS = re.compile(rf"{_TERM}\s?{_WORD}(?:{_BETWEEN}{_WORD}){{0,5}}$")
_CURRENCY = re.compile(r"^(-?)\s?(?:[$€£¥₹]|\\pounds|\\euro|USD|Rs\.?)\s?(?=[-.\d\\])")
_NO_UNIT = re.compile(
    r"\b(?:am|pm|and|or|not|is|than|less|more|most|least|at|to|if|when|where|with|for|all|any|some|wrong|plus|minus|times|"
    r"over|by|divided|mod|modulo|choose|half|halves|thirds?|hundred|dozen|percent|pct|squared|cubed|factorial|infinity|"
    r"infty|inf|root|log|ln|lg|exp|sin|cos|tan|cot|sec|csc|max|min|gcd|lcm|even|odd|tau|phi|alpha|beta|gamma|delta|theta|"
    r"lambda|mu|sigma|omega)\b",
    re.I,
)

PERCENT = r"\frac{%s}{100}"
DEGREES = r"\frac{(%s)\pi}{180}"
_FACTORS = (
    (PERCENT, re.compile(r"\s?(?:\\?%|\\text\s?\{\s?\\?(?:%|percent|pct)\s?\}|percent|pct)$", re.I)),
    (DEGREES, re.compile(r"\s?(?:\^\s?(?:\\circ|\{\s?\\circ\s?\})\s?[CFK]?|\\degree)$")),
)


def without_unit(text: str, is_number: bool) -> str:
    """`text` without the unit at its end. Plain words are one only where a number is expected: else a product."""
    text = _CURRENCY.sub(r"\1", text)
    stem = _UNIT_IN_TEXT.sub("", text)
    if stem == text and is_number:
        stem = _UNIT_IN_WORDS.sub("", text)
        stem = text if has_letters(stem) else stem
    return text if _NO_UNIT.search(text[len(stem) :]) else stem


def without_factor(text: str) -> tuple[str, str | None]:
    """`50%` -> (`50`, PERCENT), the number and the pattern of its worth; None for a number without such a sign."""
    for factor, sign in _FACTORS:
        stem = sign.sub("", text)
        if stem not in ("", text):
            return stem, factor
    return text, None


def has_letters(text: str) -> bool:
    """There is a letter outside of commands: a variable, a word."""
    return re.search("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", text)) is not None
