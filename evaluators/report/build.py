"""Build a report: open the runs, measure, draw, write.

No file is written before everything is measured and drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir

import duckdb
import pyarrow as pa

from engine.errors import StoreError
from engine.system.files import reason
from engine.system.session import scratch
from evaluators.database.run_tables import open_database
from evaluators.figures.saving import save
from evaluators.report.csv_file import to_csv
from evaluators.report.folder import INDEX, check_out, replace_report
from evaluators.report.measure import (
    Results,
    concatenate,
    measure_accuracy,
    measure_run,
    measure_together,
    redact,
)
from evaluators.report.page import Drawn, render, tables_of
from evaluators.report.runs import Run, open_runs
from evaluators.report.sections import ACCURACY, SECTIONS

OnStage = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """The files of a written report."""

    index: Path
    """The page."""
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    notes: tuple[str, ...]
    """What is missing in the report, one line each."""


@dataclass(frozen=True, slots=True)
class Content:
    """The results of all runs."""

    runs: list[Run]
    """As they were read, which may be without their damaged parts."""
    results: Results

    @property
    def names(self) -> list[str]:
        """The names of the runs."""
        return [run.name for run in self.runs]

    @property
    def notes(self) -> list[str]:
        """What is missing: first of whole runs, then by section."""
        by_section = [self.results.notes.get(section.name, []) for section in SECTIONS]
        return [
            note
            for notes in ([run.notes for run in self.runs], by_section)
            for lines in notes
            for note in lines
        ]


def build_report(
    runs: Sequence[Path], out: Path, on_stage: OnStage = lambda stage: None, show_text: bool = False
) -> Report:
    """Measure runs and write a report of them.

    Args:
        runs: The run directories.
        out: The folder of the report, which replaces an older report in it.
        on_stage: Called with the name of each stage when it begins.
        show_text: Also show the text of the tokens of gated sets, which must not be published.

    Raises:
        RunDirectoryError: One of `runs` is not a run, or `out` cannot be used.
        StoreError: A file cannot be written.
    """
    known = known_files()
    try:
        with open_database() as database:
            opened = open_runs(database, runs)
            check_out(out, known)
            content = compare(database, opened, on_stage, show_text)
            tables = content.results.tables
            drawn = draw(tables, content.names, on_stage)
            on_stage("page")
            page = render(content.runs, SECTIONS, content.results, drawn, content.notes)
    except OSError as error:  # of the temporary folders of DuckDB and of figures
        where = f"the report cannot be made in {gettempdir()}"
        raise StoreError(f"{where}: {reason(error)}; TMPDIR names another folder") from error
    csv_files = {f"tables/{name}.csv": to_csv(table) for name, table in tables.items()}
    images = {
        f"figures/{name}.{kind}": getattr(figure, kind)
        for name, figure in drawn.items()
        for kind in ("png", "svg")
    }
    replace_report(out, csv_files | images, page.encode(), known)
    table_files, figure_files = (
        tuple(out / name for name in files) for files in (csv_files, images)
    )
    return Report(out / INDEX, table_files, figure_files, tuple(content.notes))


def compare(
    database: duckdb.DuckDBPyConnection,
    runs: Sequence[Run],
    on_stage: OnStage,
    show_text: bool = False,
) -> Content:
    """Measure all runs, and compare them.

    Args:
        database: Where the runs are opened.
        runs: The runs.
        on_stage: Called with the name of each stage when it begins.
        show_text: Also keep the tables of the tokens of gated sets.
    """
    measured = [measure_run(database, run, SECTIONS[1:], on_stage) for run in runs]
    readable = [run for run, _ in measured]
    results = Results()
    parts: dict[str, list[pa.Table]] = {}
    for run, run_results in measured:
        if run.is_gated and not show_text:
            redact(run.name, run_results)
        for name, table in run_results.tables.items():
            parts.setdefault(name, []).append(table)
        for name, lines in run_results.notes.items():
            results.note(name, lines)
    results.tables |= concatenate(parts)
    on_stage("comparing runs")
    graded = [run_results.graded for _, run_results in measured]
    measure_accuracy(readable, graded, ACCURACY.name, results)
    for section in SECTIONS:
        measure_together(readable, section, results)
    return Content(readable, results)


def known_files() -> set[str]:
    """The names, within its folder, of all tables and figures that a report can have."""
    tables = {f"tables/{name}.csv" for section in SECTIONS for name in tables_of(section)}
    names = [drawing.name for section in SECTIONS for drawing in section.drawings]
    return tables | {f"figures/{name}.{kind}" for name in names for kind in ("png", "svg")}


def draw(
    tables: Mapping[str, pa.Table], names: Sequence[str], on_stage: OnStage
) -> dict[str, Drawn]:
    """Draw the figures whose tables exist.

    Args:
        tables: The tables of the report, by name.
        names: The names of the runs.
        on_stage: Called with the name of each stage when it begins.

    Returns:
        The figures by name.
    """
    drawn: dict[str, Drawn] = {}
    with scratch() as folder:
        for section in SECTIONS:
            on_stage(f"figures: {section.name}")
            for drawing in section.drawings:
                if all(table in tables for table in drawing.tables):
                    figure = drawing.draw(*(tables[table] for table in drawing.tables), names)
                    if figure is not None:
                        png, svg = save(figure, folder, drawing.name)
                        drawn[drawing.name] = Drawn(png.read_bytes(), svg.read_bytes())
    return drawn
