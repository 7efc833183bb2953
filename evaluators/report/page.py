"""The page of a report: one self-contained HTML file, with its figures inside and no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from evaluators.figures.style import colours
from evaluators.html import environment, hash_source
from evaluators.report import overview
from evaluators.report.cells import cell
from evaluators.report.measure import Results
from evaluators.report.overview import Grid
from evaluators.report.runs import Run
from evaluators.report.section import Drawing, Section

_FOLDER = Path(__file__).parent
PREVIEW_ROWS = 30
MAX_SVG_BYTES = 1_500_000  # a larger figure is shown as PNG


class Drawn(NamedTuple):
    """The files of a figure."""

    png: bytes
    svg: bytes


class Figure(NamedTuple):
    """A figure in the page."""

    name: str
    source: str
    """A `data:` URL."""
    alt: str
    caption: str


class Preview(NamedTuple):
    """The first rows of a table."""

    name: str
    grid: Grid
    num_rows: int


class SectionContent(NamedTuple):
    """What the page shows in a section."""

    section: Section
    figures: list[Figure]
    previews: list[Preview]
    notes: list[str]


def render(
    runs: Sequence[Run],
    sections: Sequence[Section],
    results: Results,
    drawn: Mapping[str, Drawn],
    notes: Sequence[str],
) -> str:
    """Render the whole page.

    Args:
        runs: The runs.
        sections: The sections, in their order.
        results: The tables, and the notes of the sections.
        drawn: The figures, by name.
        notes: The notes at the top of the page.
    """
    style = _style([run.name for run in runs])
    return (
        environment(_FOLDER)
        .get_template("page.html.j2")
        .render(
            style=style,
            style_hash=hash_source(style),
            names=[run.name for run in runs],
            runs=overview.runs_grid(runs),
            accuracy=overview.accuracy_grid(results.tables),
            num_arms=results.tables["accuracy"].num_rows if "accuracy" in results.tables else 0,
            divergence=overview.divergence_grid(results.tables),
            notes=notes,
            sections=[_section_content(section, results, drawn) for section in sections],
        )
    )


def tables_of(section: Section) -> list[str]:
    """The names of the tables that a section shows, in their order."""
    tables = [measurement.table for measurement in section.measurements]
    tables += [comparison.table for comparison in section.compares]
    tables += [table for drawing in section.drawings for table in drawing.tables]
    return list(dict.fromkeys(tables))


def _section_content(
    section: Section, results: Results, drawn: Mapping[str, Drawn]
) -> SectionContent:
    figures = [
        _figure(drawing, results, drawn[drawing.name])
        for drawing in section.drawings
        if drawing.name in drawn
    ]
    previews = [
        _preview(name, results.tables[name])
        for name in tables_of(section)
        if name in results.tables
    ]
    return SectionContent(section, figures, previews, results.notes.get(section.name, []))


def _figure(drawing: Drawing, results: Results, drawn: Drawn) -> Figure:
    caption = drawing.caption.replace("{n}", drawing.num(results.tables))
    alt = drawing.caption.split(" n: ")[0]
    return Figure(drawing.name, _data_url(drawn), alt, caption)


def _data_url(drawn: Drawn) -> str:
    kind, content = ("png", drawn.png) if len(drawn.svg) > MAX_SVG_BYTES else ("svg+xml", drawn.svg)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _preview(name: str, table: pa.Table) -> Preview:
    rows: list[dict[str, Any]] = table.slice(0, PREVIEW_ROWS).to_pylist()
    is_text = [
        pa.types.is_string(kind) or pa.types.is_large_string(kind) for kind in table.schema.types
    ]
    left = frozenset(place for place, text in enumerate(is_text) if text)
    grid = Grid(
        tuple(table.column_names),
        [tuple(cell(*item) for item in row.items()) for row in rows],
        left,
    )
    return Preview(name, grid, table.num_rows)


def _style(names: Sequence[str]) -> str:
    """The style sheet, with the colour of each run as in the figures.

    It contains no text of a run, so nothing is escaped.
    """
    swatches = [
        f".run-{place} {{ color: {colour}; }}"
        for place, colour in enumerate(colours(names).values())
    ]
    return "\n".join([(_FOLDER / "page.css").read_text(encoding="utf-8"), *swatches])
