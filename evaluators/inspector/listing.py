"""The numbers of a trajectory in the terminal: of its interventions, and of the most divergent of
its other positions.

A position is two rows of a table, a policy a row. Where that does not fit, it is a block of lines:
nothing is cut.
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
from evaluators.inspector.wording import ABSENT, spelled

NUM_DIVERGENT = 10
_SIGNS = (" ", "\N{WHITE DIAMOND}", "\N{BLACK DIAMOND}")
_NUM_TOP = 5  # of the most probable tokens
_MIN_TOP = 32  # columns that they need to stand in a table
_TEXTS = ("", "token", "policy")  # columns that are not numbers
_ANY_WIDTH = 10_000  # columns, more than any row has


def listing_means(has_primary: bool) -> str:
    """The legend of all listings."""
    signs = f"{_SIGNS[1]} interventions, {_SIGNS[2]} effective ones, and " if has_primary else ""
    return (
        f"Listed: {signs}up to {NUM_DIVERGENT} of the most divergent positions; js and entropy in"
        f" nats, nucleus in tokens; of the most probable tokens the first {_NUM_TOP} where lists"
        " were recorded, else the first"
    )


@dataclass(frozen=True, slots=True)
class Listing:
    """Of the positions of a trajectory from `start` on, to be printed."""

    sample: Sample
    traced: Traced
    start: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        primary = self.sample.primary(self.traced.key)
        listed = [_listed(self.sample, row) for row in notable(self.traced.rows, self.start)]
        if not listed:
            return
        narrowest = _table(listed, primary, _MIN_TOP)
        if (
            Measurement.get(console, options.update(max_width=_ANY_WIDTH), narrowest).maximum
            <= options.max_width
        ):
            yield _table(listed, primary)
        else:
            yield from _blocks(listed, primary)


def notable(rows: pa.Table, start: int) -> list[dict[str, Any]]:
    """From position `start` on, in their order: all interventions, and the most divergent of the
    other positions.
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
class _Listed:
    """A position, each number as it is printed.

    said:    what the primary would have said; empty where nobody intervened
    numbers: of each policy: probability, rank, entropy, nucleus
    top:     of each policy: its most probable tokens
    """

    sign: str
    position: str
    token: str
    said: str
    js: str
    numbers: tuple[tuple[str, ...], ...]
    top: tuple[str, ...]


def _listed(sample: Sample, row: dict[str, Any]) -> _Listed:
    return _Listed(
        sign=_SIGNS[bool(row["intervened"]) + bool(row["effective"])],
        position=f"{row['position']:,}",
        token=spelled(sample.text(row["token"])),
        said=_said(sample, row),
        js=_measure(row["js"]),
        numbers=tuple(_numbers(row, policy) for policy in POLICIES),
        top=tuple(_top(sample, row, policy) for policy in POLICIES),
    )


def _said(sample: Sample, row: dict[str, Any]) -> str:
    if not row["intervened"]:
        return ""
    if not row["effective"]:
        return "the same"
    return ABSENT if row["primary_token"] is None else spelled(sample.text(row["primary_token"]))


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
    """The first of its list where that was recorded, else its first token alone."""
    top = row[f"topk_{policy}"] or [one for one in (row[f"top1_{policy}"],) if one is not None]
    return " ".join(spelled(sample.text(token)) for token in top[:_NUM_TOP]) or ABSENT


def _measure(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.4g}"


def _count(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _table(listed: Sequence[_Listed], primary: str | None, most_top: int | None = None) -> Table:
    """Only the most probable tokens are ever wrapped, and in `most_top` columns if that is
    given.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    said = [f"{primary} would\nhave said"] if primary else []
    for title in (
        "",
        "position",
        "token",
        *said,
        "js",
        "policy",
        "p",
        "rank",
        "entropy",
        "nucleus",
    ):
        table.add_column(
            title, justify="left" if title in _TEXTS or title in said else "right", no_wrap=True
        )
    table.add_column("most probable", overflow="fold", max_width=most_top)
    for one in listed:
        place = [one.sign, one.position, one.token, *([one.said] if primary else []), one.js]
        for policy, numbers, top in zip(POLICIES, one.numbers, one.top, strict=True):
            table.add_row(*map(Text, (*place, policy, *numbers, top)))
            place = [""] * len(place)
    return table


def _blocks(listed: Sequence[_Listed], primary: str | None) -> Iterator[RenderableType]:
    yield Text()
    for one in listed:
        said = f", {primary} would have said {one.said}" if primary and one.said else ""
        yield Text(f"{one.sign} {one.position} {one.token}{said}, js {one.js}", overflow="fold")
        for policy, (p, rank, entropy, nucleus), top in zip(
            POLICIES, one.numbers, one.top, strict=True
        ):
            numbers = (
                f"{policy}: p {p}, rank {rank}, entropy {entropy}, nucleus {nucleus}; most probable"
                f" {top}"
            )
            yield Padding(Text(numbers, overflow="fold"), (0, 0, 0, 4))
