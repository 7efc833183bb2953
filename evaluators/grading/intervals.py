r"""An inequality in one variable -> the set it describes. Pure.

`x < 1 \text{ or } x \ge 2` is read as `(-\infty, 1) \cup [2, \infty)`, and `2 > x > 1` as `(1, 2)`:
math-verify compares chains only when they run the same way, and takes an `or` for a list.
"""

from __future__ import annotations

import re

_OR = re.compile(r"\\text\s?\{\s?or\s?\}|\bor\b|\\lor\b|\\vee\b")
_SIGN = r"(<|>|\\le(?![a-z])|\\ge(?![a-z]))"
_PLAIN = r"[^<>=,a-zA-Z\\]*"
_BOUND = rf"\s?({_PLAIN}(?:\\(?!(?:le|ge|ne|in|text)(?![a-z]))[a-z]+{_PLAIN})*)"
_ONE_SIDED = re.compile(rf"([a-zA-Z])\s?{_SIGN}{_BOUND}")
_TWO_SIDED = re.compile(rf"{_BOUND}{_SIGN}\s?([a-zA-Z])\s?{_SIGN}{_BOUND}")


def as_set(text: str) -> str | None:
    """Intervals in LaTeX, or None for anything but inequalities in one and the same letter."""
    ranges = [_range(part.strip()) for part in _OR.split(text)]
    if None in ranges or len({letter for letter, _ in filter(None, ranges)}) != 1:
        return None
    return r" \cup ".join(interval for _, interval in filter(None, ranges))


def _range(text: str) -> tuple[str, str] | None:
    """(variable, interval) of `x < 1` or of `1 < x \\le 2`."""
    one, two = _ONE_SIDED.fullmatch(text), _TWO_SIDED.fullmatch(text)
    if one:
        letter, sign, bound = one.groups()
        is_upper = sign in ("<", r"\le")
        return letter, _interval(r"-\infty", "<", sign, bound) if is_upper else _interval(
            bound, sign, "<", r"\infty"
        )
    if not two:
        return None
    low, first, letter, second, high = two.groups()
    upward, downward = ({"<", r"\le"}, {">", r"\ge"})
    if {first, second} <= upward:
        return letter, _interval(low, first, second, high)
    return (letter, _interval(high, second, first, low)) if {first, second} <= downward else None


def _interval(low: str, left: str, right: str, high: str) -> str:
    opening, closing = "(" if left in "<>" else "[", ")" if right in "<>" else "]"
    return f"{opening}{low.strip()}, {high.strip()}{closing}"
