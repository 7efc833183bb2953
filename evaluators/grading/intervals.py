r"""Inequalities in one variable -> the set that they describe. Pure.

`x < 1 \text{ or } x \ge 2` becomes `(-\infty, 1) \cup [2, \infty)`; `2 > x > 1` becomes `(1, 2)`.
math-verify compares two chains only if both rise or both fall, and takes an `or` for a list.
"""

from __future__ import annotations

import re

_OR = re.compile(r"\\text\s?\{\s?or\s?\}|\bor\b|\\lor\b|\\vee\b")
_RISING, _FALLING = {"<", r"\le"}, {">", r"\ge"}
_SIGN = r"(<|>|\\le(?![a-z])|\\ge(?![a-z]))"
_PLAIN = r"[^<>=,a-zA-Z\\]*"
_BOUND = rf"\s?({_PLAIN}(?:\\(?!(?:le|ge|ne|in|text)(?![a-z]))[a-z]+{_PLAIN})*)"
_ONE_SIDED = re.compile(rf"([a-zA-Z])\s?{_SIGN}{_BOUND}")
_TWO_SIDED = re.compile(rf"{_BOUND}{_SIGN}\s?([a-zA-Z])\s?{_SIGN}{_BOUND}")


def as_set(text: str) -> str | None:
    """The union of intervals in LaTeX; None for anything but inequalities in one variable."""
    ranges = [_range(part.strip()) for part in _OR.split(text)]
    if None in ranges or len({letter for letter, _ in filter(None, ranges)}) != 1:
        return None
    return r" \cup ".join(interval for _, interval in filter(None, ranges))


def _range(text: str) -> tuple[str, str] | None:
    """(variable, interval) of `x < 1` or of `1 < x \\le 2`; None for any other text."""
    if one_sided := _ONE_SIDED.fullmatch(text):
        letter, sign, bound = one_sided.groups()
        if sign in _RISING:
            return letter, _interval(r"-\infty", "<", sign, bound)
        return letter, _interval(bound, sign, "<", r"\infty")
    two_sided = _TWO_SIDED.fullmatch(text)
    if not two_sided:
        return None
    left, first, letter, second, right = two_sided.groups()
    if {first, second} <= _RISING:
        return letter, _interval(left, first, second, right)
    if {first, second} <= _FALLING:
        return letter, _interval(right, second, first, left)
    return None


def _interval(low: str, left: str, right: str, high: str) -> str:
    opening, closing = "(" if left in "<>" else "[", ")" if right in "<>" else "]"
    return f"{opening}{low.strip()}, {high.strip()}{closing}"
