"""A sample in the terminal: divergence as background, interventions underlined, effective ones bold, and their numbers.

Where there is no colour, interventions stand in brackets. Nothing of the run is read as markup, and nothing in it
reaches the terminal as an escape sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import pyarrow as pa
from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from engine.terminal import visible
from evaluators.inspector.alignment import Aligned, align
from evaluators.inspector.colours import LEGEND, palette, shade
from evaluators.inspector.redaction import shown
from evaluators.inspector.sample import Sample, Traced
from evaluators.inspector.wording import (
    ABSENT,
    COLOUR_MEANS,
    PRIMARY,
    facts,
    flowing,
    label,
    parting,
    settings,
    spelled,
    who,
)

_TAIL = 6  # tokens of a folded prefix that stay
_MOST_DIVERGENT = 10  # listed of a response in which nobody intervened
_NAME = Style(dim=True)
_SHARED = Style(dim=True)
_MARK = "\N{BLACK RIGHT-POINTING TRIANGLE}"
_NUMBERS = ("js", "logp_base", "logp_rl", "rank_base", "rank_rl")


def inspect_terminal(sample: Sample, show_text: bool) -> Inspection:
    """What rich prints, as the console that it is printed on allows. A gated set is redacted unless `show_text`."""
    return Inspection(shown(sample, show_text))


@dataclass(frozen=True, slots=True)
class Inspection:
    """A sample, to be printed."""

    sample: Sample

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = console.no_color or console.color_system is None
        sample = self.sample
        yield from _header(sample, plain)
        for aligned in align({traced.key: traced.tokens for traced in sample.trajectories}):
            yield from _block(sample, aligned, plain)


def _header(sample: Sample, plain: bool) -> Iterator[Text]:
    yield Text(f"{visible(sample.problem)}, sample {sample.sample}", "bold")
    for note in sample.notes:
        yield Text(f"note: {visible(note)}")
    question = ("prompt", sample.prompt) if sample.question is None else ("question", sample.question)
    yield _named(question)
    yield _named(("gold answer", sample.answer or "not known"))
    yield Text("   ").join(map(_named, settings(sample.manifest)))
    yield Text()
    yield from _plain_legend() if plain else _legend()


def _named(value: tuple[str, str]) -> Text:
    return Text.assemble((f"{value[0]} ", _NAME), visible(value[1]))


def _legend() -> Iterator[Text]:
    scale = Text()
    for js in LEGEND:
        scale.append(f" {js:.3g} ", _background(js))
    yield scale
    yield Text(COLOUR_MEANS)
    yield Text.assemble(
        ("underlined", "underline"),
        ": drawn from the intervention policy; ",
        ("and bold", "underline bold"),
        f": and the primary would have taken another token (effective); {_MARK} here it parts from another",
    )


def _plain_legend() -> Iterator[Text]:
    yield Text(
        "[token]: drawn from the intervention policy; [*token*]: and the primary would have taken another token "
        f"(effective); {_MARK} here it parts from another"
    )


def _background(js: float | None) -> Style:
    return Style() if js is None else Style(color="#000000", bgcolor=palette()[shade(js)])


def _block(sample: Sample, aligned: Aligned, plain: bool) -> Iterator[Text | Table]:
    traced = next(one for one in sample.trajectories if one.key == aligned.key)
    yield Text()
    yield Text.assemble((label(aligned.key), "bold"), (f"  {who(aligned.key)}", _NAME))
    yield Text(visible(" \N{MIDDLE DOT} ".join(facts(traced))))
    if aligned.parts_from:
        yield Text(visible(parting(aligned, sample)))
    if aligned.same and aligned.folds:
        return
    yield _tokens(sample, traced, aligned, plain)
    yield from _numbers(sample, traced, aligned.num_shared if aligned.folds else 0)


def _tokens(sample: Sample, traced: Traced, aligned: Aligned, plain: bool) -> Text:
    rows, folded = traced.rows, max(0, aligned.num_shared - _TAIL) if aligned.folds else 0
    drawn = Text(overflow="fold")
    if folded:
        drawn.append(f"... {folded:,} shared tokens ", _NAME)
    columns = zip(
        *(rows[name].to_pylist()[folded:] for name in ("token", "intervened", "effective", "js")), strict=True
    )
    for position, (token, intervened, effective, js) in enumerate(columns, folded):
        if position == aligned.num_shared > 0:
            drawn.append(_MARK)
        text, style = sample.text(token), _background(js)
        if aligned.folds and position < aligned.num_shared:
            style = _SHARED
        elif intervened and not plain:
            style += Style(underline=True, bold=bool(effective))
        drawn.append(_marked(flowing(text), intervened, effective) if plain else flowing(text), style)
        drawn.append("\n" * text.count("\n"))
    drawn.rstrip()
    return drawn


def _marked(text: str, intervened: bool, effective: bool) -> str:
    return f"[*{text}*]" if effective else f"[{text}]" if intervened else text


def _numbers(sample: Sample, traced: Traced, start: int) -> Iterator[Table]:
    """The interventions from position `start` on; where nobody could intervene, the most divergent tokens."""
    primary = PRIMARY.get(traced.key.direction)
    listed = _interventions(traced.rows, start) if primary else _most_divergent(traced.rows)
    if not listed:
        return
    titles = (f"{primary} would have said",) if primary else ()
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for title in ("position", "token", *titles, "js", "p base", "p rl", "rank base", "rank rl"):
        is_text = title == "token" or title in titles
        table.add_column(title, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
    for row in listed:
        table.add_row(*map(Text, _cells(sample, row, bool(primary))))
    yield table


def _interventions(rows: pa.Table, start: int) -> list[dict[str, Any]]:
    return list(rows.slice(start).filter(rows["intervened"].slice(start)).to_pylist())


def _most_divergent(rows: pa.Table) -> list[dict[str, Any]]:
    measured = rows.filter(rows["js"].is_valid()).sort_by([("js", "descending"), ("position", "ascending")])
    return list(measured.slice(0, _MOST_DIVERGENT).sort_by("position").to_pylist())


def _cells(sample: Sample, row: dict[str, Any], with_primary: bool) -> Sequence[str]:
    js, logp_base, logp_rl, rank_base, rank_rl = (row[name] for name in _NUMBERS)
    said = [_said(sample, row)] if with_primary else []
    probabilities = [ABSENT if logp is None else f"{exp(logp):.4g}" for logp in (logp_base, logp_rl)]
    ranks = [ABSENT if rank is None else f"{rank:,}" for rank in (rank_base, rank_rl)]
    divergence = ABSENT if js is None else f"{js:.4g}"
    return [f"{row['position']:,}", spelled(sample.text(row["token"])), *said, divergence, *probabilities, *ranks]


def _said(sample: Sample, row: dict[str, Any]) -> str:
    """What the primary would have said; the same where the intervention was not effective."""
    if row["primary_token"] is None:
        return ABSENT if row["effective"] else "the same"
    return spelled(sample.text(row["primary_token"])) if row["effective"] else "the same"
