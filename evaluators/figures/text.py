"""Text of strangers in figures: names of runs and tokens. Nothing in it is a formula, a line end or
a missing glyph.
"""

from __future__ import annotations

import unicodedata
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font

MAX_NAME = 30
MAX_TOKEN = 24
_MARKS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def name(text: str, limit: int = MAX_NAME) -> str:
    """A name as it is drawn, the middle left out where it is long: checkpoints differ at the
    end.
    """
    shown = "".join(char if char == " " else _visible(char) for char in text)
    if len(shown) <= limit:
        return shown
    tail = limit // 3
    return f"{shown[: limit - tail - 1]}…{shown[-tail:]}"


def token(text: str | None, number: int | None = None) -> str:
    r"""A token as it is drawn: ␣ for a space, ⏎ for a line end, `\u4f60` for what the font lacks.

    A token of no text, or of a part of a character only, is its number.
    """
    if number is not None and not (text or "").strip("�"):
        return f"#{number}"
    shown = "".join(_visible(char) for char in text or "")
    return shown if len(shown) <= MAX_TOKEN else f"{shown[: MAX_TOKEN - 1]}…"


def _visible(char: str) -> str:
    if char in _MARKS:
        return _MARKS[char]
    if unicodedata.category(char)[0] in "CMZ" or ord(char) not in _glyphs():
        return f"\\u{ord(char):04x}" if ord(char) < 1 << 16 else f"\\U{ord(char):08x}"
    return char


@cache
def _glyphs() -> frozenset[int]:
    """Code points that the font of the style has."""
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())
