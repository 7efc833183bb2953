"""Values as short texts for readers. The template escapes them for HTML."""

from __future__ import annotations

from engine.system.terminal import one_line
from evaluators.figures.text import token

ABSENT = "\N{EN DASH}"
_MAX_CHARS = 200


def value_text(value: object) -> str:
    """Any value of a manifest or a table as text.

    Control characters are written as escapes, and a long text is cut.
    """
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    text = one_line(str(value))
    return text if len(text) <= _MAX_CHARS else f"{text[:_MAX_CHARS]}…"


def cell(column: str, value: object) -> str:
    """A cell of a table's preview.

    As `value_text`, but a null budget is "unlimited", large numbers have separators, and tokens
    look as in figures.

    Args:
        column: The name of the column.
        value: The value of the cell.
    """
    if column.endswith("budget") and value is None:
        return "unlimited"
    if column == "text":
        return token(str(value))
    if isinstance(value, int) and not isinstance(value, bool) and column != "token":
        return f"{value:,}"
    return value_text(value)


def percent(share: float | None) -> str:
    """A share of 0 to 1 in %, without the sign; a small one keeps two digits."""
    if share is None:
        return ABSENT
    value = 100 * share
    return f"{value:.1f}" if value == 0 or abs(value) >= 1 else f"{value:.2g}"


def interval(low: float | None, high: float | None) -> str:
    """An interval of shares in %."""
    return ABSENT if low is None or high is None else f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}"


def number(value: float | None) -> str:
    """A mean number of something, with one decimal."""
    return ABSENT if value is None else f"{value:,.1f}"
