r"""Written numbers -> exact values. Pure.

    integer_digits    1,000   007   -0   1{,}000
    parse_rational    0.5   1/2   \frac{1}{2}   2\frac12   1.5\times10^{3}   1e3
                      0.\overline{3}   0.333...

Integers may have any length, exponents at most three digits, so that none fills the memory.
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
# Longer numbers are compared by `integer_digits` or not at all.
_MAX_CHARS = 1_000
# As in math-verify, a decimal counts to six places; here to six digits if it is below 1.
_TOLERANCE = Fraction(1, 10**6)


class Rational(NamedTuple):
    """A rational number as it was written."""

    value: Fraction
    is_rounded: bool
    """The number has a decimal point, so it may stand for a value near it."""


def integer_digits(text: str) -> str | None:
    """The digits of a plain integer, without leading zeros and with `-` if it is negative.

    Args:
        text: An answer without delimiters.

    Returns:
        The digits; None for anything but a plain integer.
    """
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = re.sub(r"\D", "", match[2]).lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def parse_rational(text: str) -> Rational | None:
    """The rational number that a text writes; None for any other text, as for `1/0`."""
    if len(text) > _MAX_CHARS:
        return None
    for parse in (_parse_scientific, _parse_mixed, _parse_slashed, _parse_repeating):
        number = parse(text)
        if number is not None:
            return number
    return None


def are_equal(gold: Rational, answer: Rational) -> bool:
    """True for two equal numbers, or two close ones of which one is a decimal.

    They are close if they differ by at most 1e-6, or 1e-6 of the larger if both are below 1.
    """
    if gold.value == answer.value:
        return True
    if not (gold.is_rounded or answer.is_rounded):
        return False
    size = min(Fraction(1), max(abs(gold.value), abs(answer.value)))
    return abs(gold.value - answer.value) <= _TOLERANCE * size


def _parse_scientific(text: str) -> Rational | None:
    match = _SCIENTIFIC.fullmatch(text)
    if match is None:
        return None
    exponent = next((int(match[name]) for name in "ebd" if match[name]), 0)
    value = _decimal(match["value"]) * Fraction(10) ** exponent
    return Rational(_apply_sign(match, value), is_rounded="." in match["value"])


def _parse_mixed(text: str) -> Rational | None:
    match = _MIXED.fullmatch(text)
    return match and _quotient(match, match["n"] or match["n1"], match["m"] or match["m1"])


def _parse_slashed(text: str) -> Rational | None:
    match = _SLASHED.fullmatch(text)
    return match and _quotient(match, match["n"], match["m"])


def _parse_repeating(text: str) -> Rational | None:
    match = _REPEATING.fullmatch(text)
    if match is None:
        return None
    fixed, block = match["fixed"], match["over"] or match["paren"] or match["block"]
    places = len(fixed.partition(".")[2])
    tail = Fraction(int(block), 10**places * (10 ** len(block) - 1))
    return Rational(_apply_sign(match, _decimal(fixed) + tail), is_rounded=False)


def _quotient(match: re.Match[str], numerator: str, denominator: str) -> Rational | None:
    divisor = _decimal(denominator)
    if not divisor or (match["whole"] and "-" in numerator + denominator):
        return None
    value = int(match["whole"] or 0) + _decimal(numerator) / divisor
    return Rational(_apply_sign(match, value), is_rounded="." in numerator + denominator)


def _decimal(digits: str) -> Fraction:
    whole, _, places = digits.replace(",", "").partition(".")
    return Fraction(int(f"{whole}{places}" or 0), 10 ** len(places))


def _apply_sign(match: re.Match[str], value: Fraction) -> Fraction:
    return -value if match["sign"] == "-" else value
