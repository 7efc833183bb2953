r"""A quantity -> its number without the unit. Pure.

Units are removed and not converted:

    5 apples   5\text{ cm}^2   9.8\,\mathrm{m/s^2}   \$5    a unit: only the number counts
    50\%   60^\circ                                        a unit, or a factor of the number
    5x   2 pm   5 or more                                  no unit: a variable, a time, a condition
"""

from __future__ import annotations

import re

_TEXT = r"\\(?:text(?:rm|bf|it|sf|normal|up)?|mathrm|mbox|operatorname)\s?\{(?:[^{}]|\{[^{}]*\})*\}"
_POWER = r"(?:\s?\^\s?(?:\{[-\d ]*\}|-?\d))?"
_SET_IN_TEXT = rf"(?:{_TEXT}|\\frac\s?\{{{_TEXT}{_POWER}\}}\s?\{{{_TEXT}{_POWER}\}}){_POWER}"
_WORD = rf"(?<![A-Za-z\\])(?:[A-Za-z]{{2,}}\.?|(?<=[ /])[mgshlLJNW])(?![A-Za-z]){_POWER}"
_BETWEEN = r"(?:\s?(?:/|\*|\\cdot)\s?|\s)?"
# A unit stands behind the end of a term: not an operator, an index or an equals sign.
_TERM = r"(?<=[\w)}\]!.])"
_UNIT_IN_TEXT = re.compile(rf"{_TERM}\s?{_SET_IN_TEXT}(?:{_BETWEEN}{_SET_IN_TEXT}){{0,5}}$")
_UNIT_IN_WORDS = re.compile(rf"{_TERM}\s?{_WORD}(?:{_BETWEEN}{_WORD}){{0,5}}$")
_CURRENCY = re.compile(r"^(-?)\s?(?:[$€£¥₹]|\\pounds|\\euro|USD|Rs\.?)\s?(?=[-.\d\\])")
_NUMERAL = re.compile(r"\d|\\(?:pi|infty|sqrt)")

_KNOWN = """
    mm cm dm m km in ft yd mi sq cu mg g kg t lb lbs oz ms s sec secs min mins h hr hrs
    yr yrs month months l ml cc mph
    kph kmh fps rpm n j w v a c pa kpa hz khz mhz mol rad usd eur gbp pt pts deg
"""
_UNITS = frozenset(_KNOWN.split())
# Words that change the number or its meaning.
_NO_UNIT = re.compile(
    r"am|pm|and|or|not|is|than|less|fewer|more|most|least|above|below|at|to|if|when|where|with|for|all|any|some|zero|maybe|"
    r"wrong|incorrect|false|true|plus|minus|over|by|divided|mod|modulo|choose|half|halves|quarters?|[a-z]+(?:th|rd|nd)s?|"
    r"(?:hundred|thousand|[bmtr]+illion|lakh|crore|dozen)s?|percent|pct|factorial|infinity|infty|inf|root|log|ln|lg|exp|"
    r"(?:arc|a)?(?:sin|cos|tan|cot|sec|csc)h?|max|gcd|lcm|even|odd|alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|"
    r"lambda|nu|xi|omicron|pi|rho|sigma|tau|upsilon|phi|chi|psi|omega",
    re.I,
)

# The value of a number with the sign, as a pattern for the number.
PERCENT = r"\frac{%s}{100}"
DEGREES = r"\frac{(%s)\pi}{180}"
_FACTORS = (
    (
        PERCENT,
        re.compile(r"\s?(?:\\?%|\\text\s?\{\s?\\?(?:%|percent|pct)\s?\}|percent|pct)$", re.I),
    ),
    (DEGREES, re.compile(r"\s?(?:\^\s?(?:\\circ|\{\s?\\circ\s?\})\s?[CFK]?|\\degree)$")),
)


def strip_unit(text: str, is_number: bool) -> str:
    r"""Remove a currency sign in front and the unit at the end.

    Args:
        text: A tidy formula.
        is_number: The gold answer is a number. Only then, and only behind a number, are letters
            outside of `\text` a unit; elsewhere they are a product.
    """
    text = _CURRENCY.sub(r"\1", text)
    for pattern, is_typeset in ((_UNIT_IN_TEXT, True), (_UNIT_IN_WORDS, False)):
        match = pattern.search(text)
        if match and _is_unit(match.group(), is_typeset):
            stem = text[: match.start()]
            # 2\pi h is a product: a lone letter is a unit only behind a digit.
            is_variable = len(match.group().strip()) == 1 and not stem[-1:].isdigit()
            is_quantity = is_number and _NUMERAL.search(stem) and not has_letters(stem)
            if is_typeset or (is_quantity and not is_variable):
                return stem
    return text


def _is_unit(text: str, is_typeset: bool) -> bool:
    """True for words that name a unit or counted things.

    A word without a space behind its number (`5cm`) must be a known unit.
    """
    plain = re.sub(r"\\[A-Za-z]+", " ", re.sub(r"\^\s?(?:\{[-\d ]*\}|-?\d)", "", text))
    words = re.findall("[A-Za-z]+", plain)
    if not words or re.search(r"\d", plain) or words[0].lower() in ("squared", "cubed"):
        return False
    is_glued = not is_typeset and text[0].isalpha()
    return _names_unit(words[0], must_be_known=is_glued) and all(
        _names_unit(word, must_be_known=False) for word in words[1:]
    )


def _names_unit(word: str, must_be_known: bool) -> bool:
    if word.lower() in _UNITS and (len(word) > 1 or word in "mgshlLJNW"):
        return True
    is_word = len(word) > 2 and not word.isupper() and re.search("[aeiouy]", word, re.I)
    return bool(is_word) and not must_be_known and not _NO_UNIT.fullmatch(word)


def split_factor(text: str) -> tuple[str, str | None]:
    """Split a percent or degree sign from its number: `50%` -> (`50`, PERCENT).

    Returns:
        The number, and PERCENT or DEGREES; the text and None where it ends in no such sign.
    """
    for factor, sign in _FACTORS:
        stem = sign.sub("", text)
        if stem not in ("", text):
            return stem, factor
    return text, None


def has_letters(text: str) -> bool:
    """True for a text with a letter outside of LaTeX commands: a variable or a word."""
    return re.search("[A-Za-z]", re.sub(r"\\[A-Za-z]+", "", text)) is not None
