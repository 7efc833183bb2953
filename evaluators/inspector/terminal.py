"""A sample in the terminal: divergence as background, interventions underlined, and their numbers.

Effective interventions are also bold. Without colour, interventions stand in brackets. No text of
the run is read as markup or reaches the terminal as an escape sequence.
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
from evaluators.inspector.listing import Listing, legend
from evaluators.inspector.redaction import redact_if_gated
from evaluators.inspector.sample import Sample, Traced
from evaluators.inspector.wording import (
    COLOUR_MEANS,
    facts,
    inline_text,
    label,
    parting,
    roles,
    settings,
)

_TAIL = 6  # the last tokens of a folded prefix, which are still shown
_NAME = Style(dim=True)
_SHARED = Style(dim=True)
_MARK = "\N{BLACK RIGHT-POINTING TRIANGLE}"


def inspect_terminal(sample: Sample, show_text: bool) -> Inspection:
    """A sample for rich to print, with or without colour as the console allows.

    Args:
        sample: The responses to show.
        show_text: Also show the text of a gated set, which must not be published.
    """
    return Inspection(redact_if_gated(sample, show_text))


@dataclass(frozen=True, slots=True)
class Inspection:
    """A sample for rich to print."""

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
    yield Text(legend(sample.has_primary))


def _named(value: tuple[str, str]) -> Text:
    return Text.assemble((f"{value[0]} ", _NAME), visible(value[1]))


def _scale() -> Text:
    scale = Text()
    for js in LEGEND:
        scale.append(f" {js:.3g} ", _background(js))
    return scale


def _marks(plain: bool, has_primary: bool) -> Text:
    """The meaning of the marks in the text; without interventions where none were possible."""
    marks = Text()
    if has_primary:
        intervened, effective = ("[token]", "[*token*]") if plain else ("underlined", "and bold")
        marks.append(intervened, Style(underline=not plain)).append(
            ": sampled from the intervention policy; "
        )
        marks.append(effective, Style(underline=not plain, bold=not plain))
        marks.append(": and the primary would have sampled another token (effective); ")
    return marks.append(f"{_MARK} here it parts from another")


def _background(js: float | None) -> Style:
    return Style() if js is None else Style(color="#000000", bgcolor=palette()[shade(js)])


def _block(sample: Sample, aligned: Aligned, plain: bool) -> Iterator[Text | Listing]:
    traced = next(traced for traced in sample.trajectories if traced.key == aligned.key)
    primary = sample.primary(aligned.key)
    yield Text()
    yield Text.assemble((label(aligned.key), "bold"), (f"  {roles(primary)}", _NAME))
    yield Text(visible(" \N{MIDDLE DOT} ".join(facts(traced, primary))))
    if aligned.parts_from:
        yield Text(visible(parting(aligned, sample)))
    if aligned.same and aligned.folds:
        return
    yield _tokens(sample, traced, aligned, plain)
    yield Listing(sample, traced, aligned.num_shared if aligned.folds else 0)


def _tokens(sample: Sample, traced: Traced, aligned: Aligned, plain: bool) -> Text:
    rows = traced.rows
    folded = max(0, aligned.num_shared - _TAIL) if aligned.folds else 0
    text = Text(overflow="fold")
    if folded:
        text.append(f"... {folded:,} shared tokens ", _NAME)
    columns = zip(
        *(rows[name].to_pylist()[folded:] for name in ("token", "intervened", "effective", "js")),
        strict=True,
    )
    for position, (token, intervened, effective, js) in enumerate(columns, folded):
        if position == aligned.num_shared > 0:
            text.append(_MARK)
        token_text, style = sample.text(token), _background(js)
        if aligned.folds and position < aligned.num_shared:
            style = _SHARED
        elif intervened and not plain:
            style += Style(underline=True, bold=bool(effective))
        inline = inline_text(token_text)
        text.append(_add_brackets(inline, intervened, effective) if plain else inline, style)
        text.append("\n" * token_text.count("\n"))
    text.rstrip()
    return text


def _add_brackets(text: str, intervened: bool, effective: bool) -> str:
    if effective:
        return f"[*{text}*]"
    return f"[{text}]" if intervened else text
