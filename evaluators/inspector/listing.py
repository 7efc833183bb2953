"""The numbers of a trajectory in the terminal.

Of all interventions, and of the most divergent of the other positions. A position has two rows in a
table, one per policy. Where the table does not fit, a position is a block of lines, so that nothing
is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from engine.core import POLICIES
from evaluators.inspector.sample import Sample, Traced
from evaluators.inspector.wording import ABSENT, quote_token

NUM_DIVERGENT = 10
_SIGNS = (" ", "\N{WHITE DIAMOND}", "\N{BLACK DIAMOND}")
_NUM_TOP = 5  # of the most probable tokens
_MIN_TOP_WIDTH = 32  # columns that the most probable tokens need at least in a table
_TEXTS = ("", "token", "policy")  # columns that are not numbers
_ANY_WIDTH = 10_000  # columns, more than any row has


def legend(has_primary: bool) -> str:
    """The legend of all listings; `has_primary` is whether interventions were possible."""
    signs = f"{_SIGNS[1]} interventions, {_SIGNS[2]} effective ones, and " if has_primary else ""
    return (
        f"Listed: {signs}up to {NUM_DIVERGENT} of the most divergent positions; js and entropy in"
        f" nats, nucleus in tokens; the {_NUM_TOP} most probable tokens where lists were recorded,"
        " else the most probable one"
    )


@dataclass(frozen=True, slots=True)
class Listing:
    """The positions of a trajectory from `start` on, for rich to print."""

    sample: Sample
    traced: Traced
    start: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        primary = self.sample.primary(self.traced.key)
        rows = notable_rows(self.traced.rows, self.start)
        positions = [_position(self.sample, row) for row in rows]
        if not positions:
            return
        narrowest = _table(positions, primary, _MIN_TOP_WIDTH)
        any_width = options.update(max_width=_ANY_WIDTH)
        if Measurement.get(console, any_width, narrowest).maximum <= options.max_width:
            yield _table(positions, primary)
        else:
            yield from _blocks(positions, primary)


def notable_rows(rows: pa.Table, start: int) -> list[dict[str, Any]]:
    """All interventions, and the NUM_DIVERGENT most divergent of the other positions.

    Args:
        rows: The token rows of a trajectory.
        start: The first position that counts.

    Returns:
        The rows in the order of positions.
    """
    rows = rows.slice(start)
    others = rows.filter(pc.and_(pc.invert(rows["intervened"]), rows["js"].is_valid()))
    divergent = others.sort_by([("js", "descending"), ("position", "ascending")]).slice(
        0, NUM_DIVERGENT
    )
    return list(
        pa.concat_tables([rows.filter(rows["intervened"]), divergent])
        .sort_by("position")
        .to_pylist()
    )


@dataclass(frozen=True, slots=True)
class _Position:
    """A position, with each number as it is printed."""

    sign: str
    number: str
    token: str
    primary_token: str
    """The token that the primary would have sampled; empty without an intervention."""
    js: str
    numbers: tuple[tuple[str, ...], ...]
    """Of each policy: probability, rank, entropy, nucleus."""
    top: tuple[str, ...]
    """Of each policy: its most probable tokens."""


def _position(sample: Sample, row: dict[str, Any]) -> _Position:
    return _Position(
        sign=_SIGNS[bool(row["intervened"]) + bool(row["effective"])],
        number=f"{row['position']:,}",
        token=quote_token(sample.text(row["token"])),
        primary_token=_primary_token(sample, row),
        js=_measure(row["js"]),
        numbers=tuple(_numbers(row, policy) for policy in POLICIES),
        top=tuple(_top(sample, row, policy) for policy in POLICIES),
    )


def _primary_token(sample: Sample, row: dict[str, Any]) -> str:
    if not row["intervened"]:
        return ""
    if not row["effective"]:
        return "the same"
    return (
        ABSENT if row["primary_token"] is None else quote_token(sample.text(row["primary_token"]))
    )


def _numbers(row: dict[str, Any], policy: str) -> tuple[str, ...]:
    logp, rank, entropy, nucleus = (
        row[f"{name}_{policy}"] for name in ("logp", "rank", "entropy", "nucleus")
    )
    return (
        _measure(None if logp is None else exp(logp)),
        _count(rank),
        _measure(entropy),
        _count(nucleus),
    )


def _top(sample: Sample, row: dict[str, Any], policy: str) -> str:
    """The first of the recorded list; without a list the top token alone."""
    top = row[f"topk_{policy}"]
    if not top:
        top1 = row[f"top1_{policy}"]
        top = [] if top1 is None else [top1]
    return " ".join(quote_token(sample.text(token)) for token in top[:_NUM_TOP]) or ABSENT


def _measure(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"


def _count(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _table(
    positions: Sequence[_Position], primary: str | None, max_top_width: int | None = None
) -> Table:
    """A table of positions, two rows each.

    Only the most probable tokens are wrapped; their column is at most `max_top_width` wide.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    primary_title = [f"{primary} would\nhave sampled"] if primary else []
    texts = (*_TEXTS, *primary_title)
    numbers_titles = ("policy", "p", "rank", "entropy", "nucleus")
    for title in ("", "position", "token", *primary_title, "js", *numbers_titles):
        table.add_column(title, justify="left" if title in texts else "right", no_wrap=True)
    table.add_column("most probable", overflow="fold", max_width=max_top_width)
    for position in positions:
        primary_token = [position.primary_token] if primary else []
        cells = [position.sign, position.number, position.token, *primary_token, position.js]
        for policy, numbers, top in zip(POLICIES, position.numbers, position.top, strict=True):
            table.add_row(*map(Text, (*cells, policy, *numbers, top)))
            cells = [""] * len(cells)
    return table


def _blocks(positions: Sequence[_Position], primary: str | None) -> Iterator[RenderableType]:
    yield Text()
    for position in positions:
        line = f"{position.sign} {position.number} {position.token}"
        if primary and position.primary_token:
            line += f", {primary} would have sampled {position.primary_token}"
        yield Text(f"{line}, js {position.js}", overflow="fold")
        for policy, (p, rank, entropy, nucleus), top in zip(
            POLICIES, position.numbers, position.top, strict=True
        ):
            numbers = (
                f"{policy}: p {p}, rank {rank}, entropy {entropy}, nucleus {nucleus}; most probable"
                f" {top}"
            )
            yield Padding(Text(numbers, overflow="fold"), (0, 0, 0, 4))
