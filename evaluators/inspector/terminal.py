"""A sample in the terminal: divergence as background, interventions underlined, effective ones
bold, and their numbers.

Where there is no colour, interventions stand in brackets. Nothing of the run is read as markup, and
nothing in it reaches the terminal as an escape sequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

from engine.system.terminal import visible
from evaluators.inspector.alignment import Aligned, align
from evaluators.inspector.colours import LEGEND, palette, shade
from evaluators.inspector.listing import Listing, listing_means
from evaluators.inspector.redaction import shown
from evaluators.inspector.sample import Sample, Traced
from evaluators.inspector.wording import COLOUR_MEANS, facts, flowing, label, parting, settings, who

_TAIL = 6  # tokens of a folded prefix that stay
_NAME = Style(dim=True)
_SHARED = Style(dim=True)
_MARK = "\N{BLACK RIGHT-POINTING TRIANGLE}"


def inspect_terminal(sample: Sample, show_text: bool) -> Inspection:
    """What rich prints, as the console that it is printed on allows. A gated set is redacted unless
    `show_text`.
    """
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
    question = (
        ("prompt", sample.prompt) if sample.question is None else ("question", sample.question)
    )
    yield _named(question)
    yield _named(("gold answer", sample.answer or "not known"))
    yield Text("   ").join(map(_named, settings(sample.manifest)))
    yield Text()
    if not plain:
        yield _scale()
        yield Text(COLOUR_MEANS)
    yield _marks(plain, sample.has_primary)
    yield Text(listing_means(sample.has_primary))


def _named(value: tuple[str, str]) -> Text:
    return Text.assemble((f"{value[0]} ", _NAME), visible(value[1]))


def _scale() -> Text:
    scale = Text()
    for js in LEGEND:
        scale.append(f" {js:.3g} ", _background(js))
    return scale


def _marks(plain: bool, has_primary: bool) -> Text:
    """What the marks in the text mean; of interventions only where somebody could intervene."""
    marks = Text()
    if has_primary:
        intervened, effective = ("[token]", "[*token*]") if plain else ("underlined", "and bold")
        marks.append(intervened, Style(underline=not plain)).append(
            ": drawn from the intervention policy; "
        )
        marks.append(effective, Style(underline=not plain, bold=not plain))
        marks.append(": and the primary would have taken another token (effective); ")
    return marks.append(f"{_MARK} here it parts from another")


def _background(js: float | None) -> Style:
    return Style() if js is None else Style(color="#000000", bgcolor=palette()[shade(js)])


def _block(sample: Sample, aligned: Aligned, plain: bool) -> Iterator[Text | Listing]:
    traced = next(one for one in sample.trajectories if one.key == aligned.key)
    primary = sample.primary(aligned.key)
    yield Text()
    yield Text.assemble((label(aligned.key), "bold"), (f"  {who(primary)}", _NAME))
    yield Text(visible(" \N{MIDDLE DOT} ".join(facts(traced, primary))))
    if aligned.parts_from:
        yield Text(visible(parting(aligned, sample)))
    if aligned.same and aligned.folds:
        return
    yield _tokens(sample, traced, aligned, plain)
    yield Listing(sample, traced, aligned.num_shared if aligned.folds else 0)


def _tokens(sample: Sample, traced: Traced, aligned: Aligned, plain: bool) -> Text:
    rows, folded = traced.rows, max(0, aligned.num_shared - _TAIL) if aligned.folds else 0
    drawn = Text(overflow="fold")
    if folded:
        drawn.append(f"... {folded:,} shared tokens ", _NAME)
    columns = zip(
        *(rows[name].to_pylist()[folded:] for name in ("token", "intervened", "effective", "js")),
        strict=True,
    )
    for position, (token, intervened, effective, js) in enumerate(columns, folded):
        if position == aligned.num_shared > 0:
            drawn.append(_MARK)
        text, style = sample.text(token), _background(js)
        if aligned.folds and position < aligned.num_shared:
            style = _SHARED
        elif intervened and not plain:
            style += Style(underline=True, bold=bool(effective))
        drawn.append(
            _marked(flowing(text), intervened, effective) if plain else flowing(text), style
        )
        drawn.append("\n" * text.count("\n"))
    drawn.rstrip()
    return drawn


def _marked(text: str, intervened: bool, effective: bool) -> str:
    return f"[*{text}*]" if effective else f"[{text}]" if intervened else text
