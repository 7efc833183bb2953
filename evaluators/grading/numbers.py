r"""Numbers as people write them -> exact values. Pure; any length, but no exponent that would fill
memory.

integer    1,000   007   -0   1{,}000          canonical digits, and nothing that is not a plain
integer rational   0.5   1/2   \frac{1}{2}   2\frac12   1.5\times10^{3}   1e3   0.\overline{3}
0.333...
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

# Thousands: groups of three behind one and the same separator, as in 1,000 1{,}000 1\,000 1,\!000
_INTEGER = re.compile(r"([+-]?)(\d{1,3}(?:(,|\{,\}|\\,|,\\!)\d{3}(?:\3\d{3})*)?|\d+)", re.ASCII)

_DECIMAL = r"\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+"
_EXPONENT = (
    r"[eE](?P<e>[+-]?\d{1,3})"
    r"|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*(?P<b>[+-]?\d{1,3})\s*\}|(?P<d>\d))"
)
_BRACED = rf"\{{\s*(?P<n>-?(?:{_DECIMAL}))\s*\}}\s*\{{\s*(?P<m>-?(?:{_DECIMAL}))\s*\}}"
_SIGN = r"(?P<sign>[+-]?)\s*"
_SCIENTIFIC = re.compile(rf"{_SIGN}(?P<value>{_DECIMAL})(?:{_EXPONENT})?", re.ASCII)
_MIXED = re.compile(
    rf"{_SIGN}(?P<whole>\d+)?\s*\\frac\s*(?:{_BRACED}|(?P<n1>\d)\s*(?P<m1>\d))", re.ASCII
)
_SLASHED = re.compile(
    rf"{_SIGN}(?:(?P<whole>\d+)\s+)?(?P<n>{_DECIMAL})\s*/\s*(?P<m>{_DECIMAL})", re.ASCII
)
_REPEATING = re.compile(
    rf"{_SIGN}(?P<fixed>\d*\.\d*)(?:\\(?:overline|bar|dot)\s*\{{(?P<over>\d+)\}}|\((?P<paren>\d+)\)|"
    r"(?P<block>\d)(?P=block){2,}\s*(?:\.\.\.|\\[lc]?dots))",
    re.ASCII,
)
# Longer numbers are compared by their digits (`integer`) or not at all.
_MAX_CHARS = 1_000
# What math-verify takes for equal when one side is a decimal: six places, here of significance for
# small numbers.
_TOLERANCE = Fraction(1, 10**6)


class Rational(NamedTuple):
    """An exact value; `is_rounded` when it was written with a decimal point, and may stand for one
    near it.
    """

    value: Fraction
    is_rounded: bool


def integer(text: str) -> str | None:
    """Canonical digits of a plain integer without delimiters around it, None for anything else."""
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = re.sub(r"\D", "", match[2]).lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def rational(text: str) -> Rational | None:
    """The number that `text` is, None for anything else; a fraction with denominator 0 is none."""
    if len(text) > _MAX_CHARS:
        return None
    for read in (_scientific, _mixed, _slashed, _repeating):
        number = read(text)
        if number is not None:
            return number
    return None


def are_equal(gold: Rational, answer: Rational) -> bool:
    """Exactly; a decimal may also differ by one in the sixth place, or in the sixth digit of a
    number below 1.
    """
    if gold.value == answer.value:
        return True
    if not (gold.is_rounded or answer.is_rounded):
        return False
    size = min(Fraction(1), max(abs(gold.value), abs(answer.value)))
    return abs(gold.value - answer.value) <= _TOLERANCE * size


def _scientific(text: str) -> Rational | None:
    match = _SCIENTIFIC.fullmatch(text)
    if match is None:
        return None
    exponent = next((int(match[name]) for name in "ebd" if match[name]), 0)
    return Rational(
        _signed(match, _decimal(match["value"]) * Fraction(10) ** exponent), "." in match["value"]
    )


def _mixed(text: str) -> Rational | None:
    match = _MIXED.fullmatch(text)
    return match and _quotient(match, match["n"] or match["n1"], match["m"] or match["m1"])


def _slashed(text: str) -> Rational | None:
    match = _SLASHED.fullmatch(text)
    return match and _quotient(match, match["n"], match["m"])


def _repeating(text: str) -> Rational | None:
    match = _REPEATING.fullmatch(text)
    if match is None:
        return None
    fixed, block = match["fixed"], match["over"] or match["paren"] or match["block"]
    places = len(fixed.partition(".")[2])
    tail = Fraction(int(block), 10**places * (10 ** len(block) - 1))
    return Rational(_signed(match, _decimal(fixed) + tail), is_rounded=False)


def _quotient(match: re.Match[str], numerator: str, denominator: str) -> Rational | None:
    below = _decimal(denominator)
    if not below or (match["whole"] and "-" in numerator + denominator):
        return None
    value = int(match["whole"] or 0) + _decimal(numerator) / below
    return Rational(_signed(match, value), "." in numerator + denominator)


def _decimal(digits: str) -> Fraction:
    whole, _, places = digits.replace(",", "").partition(".")
    return Fraction(int(f"{whole}{places}" or 0), 10 ** len(places))


def _signed(match: re.Match[str], value: Fraction) -> Fraction:
    return -value if match["sign"] == "-" else value
