"""Words set in lines like a paragraph: where each goes, from its size alone. Lengths in any one
unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """A word: how wide, and how far above and below its base line it may reach."""

    width: float
    ascent: float
    descent: float


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Of each word the left end and the depth of its base line below the top, and the height of
    all.
    """

    places: list[tuple[float, float]]
    height: float


def flow(words: Sequence[Size], width: float, gap: float) -> Paragraph:
    """The words in their order, in lines of at most `width`, `gap` apart; a wider word has a line
    of its own.
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
