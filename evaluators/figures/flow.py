"""The layout of words in lines, like a paragraph: from their sizes to their positions.

All lengths are in the same unit, whichever that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """The size of a word."""

    width: float
    ascent: float
    """How far it reaches above its base line."""
    descent: float
    """How far it reaches below its base line."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """The positions of words."""

    places: list[tuple[float, float]]
    """Of each word its left end, and the depth of its base line below the top."""
    height: float
    """Of the whole paragraph."""


def flow(words: Sequence[Size], width: float, gap: float) -> Paragraph:
    """Set words in lines, in their order.

    Args:
        words: The sizes of the words.
        width: The largest width of a line; a wider word has a line of its own.
        gap: The distance between words.
    """
    places: list[tuple[float, float]] = []
    depth = 0.0
    for line in _lines(words, width, gap):
        depth += max(word.ascent for word in line)
        left = 0.0
        for word in line:
            places.append((left, depth))
            left += word.width + gap
        depth += max(word.descent for word in line) + gap / 2
    return Paragraph(places, depth)


def _lines(words: Sequence[Size], width: float, gap: float) -> list[list[Size]]:
    lines: list[list[Size]] = []
    used = width
    for word in words:
        if lines and used + gap + word.width <= width:
            lines[-1].append(word)
            used += gap + word.width
        else:
            lines.append([word])
            used = word.width
    return lines
