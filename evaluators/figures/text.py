"""Untrusted text in figures: names of runs, and tokens.

As drawn it has no formula, no line end and no missing glyph.
"""

from __future__ import annotations

import unicodedata
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font

MAX_NAME = 30
MAX_TOKEN = 24
_MARKS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\r": "␍"}


def name(text: str, limit: int = MAX_NAME) -> str:
    """A name as it is drawn.

    A long name is cut in the middle, because checkpoints differ at the end.

    Args:
        text: The name.
        limit: The largest number of characters.
    """
    drawn = "".join(char if char == " " else _visible(char) for char in text)
    if len(drawn) <= limit:
        return drawn
    tail = limit // 3
    return f"{drawn[: limit - tail - 1]}…{drawn[-tail:]}"


def token(text: str | None, number: int | None = None) -> str:
    r"""A token as it is drawn.

    A space is ␣, a line end ⏎, and a character that the font lacks its code, such as `\u4f60`.

    Args:
        text: The text of the token; None where it is not known.
        number: The id of the token. It is drawn where the token has no text, or only a part of a
            character.
    """
    if number is not None and not (text or "").strip("�"):
        return f"#{number}"
    drawn = "".join(_visible(char) for char in text or "")
    return drawn if len(drawn) <= MAX_TOKEN else f"{drawn[: MAX_TOKEN - 1]}…"


def _visible(char: str) -> str:
    if char in _MARKS:
        return _MARKS[char]
    if unicodedata.category(char)[0] in "CMZ" or ord(char) not in _glyphs():
        return f"\\u{ord(char):04x}" if ord(char) < 1 << 16 else f"\\U{ord(char):08x}"
    return char


@cache
def _glyphs() -> frozenset[int]:
    """The code points that the font of the style has."""
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())
