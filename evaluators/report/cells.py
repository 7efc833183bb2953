"""Values as short texts for people. Escaping for HTML is the template's business."""

from __future__ import annotations

from engine.system.terminal import one_line
from evaluators.figures.text import token

ABSENT = "\N{EN DASH}"
_LONGEST = 200


def shown(value: object) -> str:
    """Any value of a manifest or a table; control characters are written out, and a long text is
    cut.
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
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def cell(column: str, value: object) -> str:
    """A cell of a table's preview: as `shown`, with a budget of null by its name, thousands apart,
    tokens as drawn.
    """
    if column.endswith("budget") and value is None:
        return "unlimited"
    if column == "text":
        return token(str(value))
    if isinstance(value, int) and not isinstance(value, bool) and column != "token":
        return f"{value:,}"
    return shown(value)


def percent(share: float | None) -> str:
    """A share 0 ... 1 in %, without its sign; a small one keeps two digits."""
    if share is None:
        return ABSENT
    value = 100 * share
    return f"{value:.1f}" if value == 0 or abs(value) >= 1 else f"{value:.2g}"


def interval(low: float | None, high: float | None) -> str:
    """Both ends in %."""
    return ABSENT if low is None or high is None else f"{100 * low:.1f}\N{EN DASH}{100 * high:.1f}"


def number(value: float | None) -> str:
    """A mean count."""
    return ABSENT if value is None else f"{value:,.1f}"
