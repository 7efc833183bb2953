"""Build a report: open the runs, measure, draw, write. No file is written before everything is
measured and drawn.
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
    Measured,
    concatenated,
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
    """What was written. notes: what is missing in the report, a line each."""

    index: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """What was measured of which runs; a run is as it was read, maybe without its damaged parts."""

    runs: list[Run]
    measured: Measured

    @property
    def names(self) -> list[str]:
        return [run.name for run in self.runs]

    @property
    def notes(self) -> list[str]:
        """What is missing: of whole runs, then by section."""
        by_section = [self.measured.notes.get(section.name, []) for section in SECTIONS]
        return [
            note
            for notes in ([run.notes for run in self.runs], by_section)
            for lines in notes
            for note in lines
        ]


def build_report(
    runs: Sequence[Path], out: Path, on_stage: OnStage = lambda stage: None, show_text: bool = False
) -> Report:
    """Measure `runs` and write tables, figures and index.html into `out`, in place of the report
    that is there.

    on_stage: told what is being done. show_text: also show the text of tokens of gated sets. Raises
    RunDirectoryError for a run that is none and an `out` that cannot be used, StoreError where a
    file cannot be written.
    """
    known = known_files()
    try:
        with open_database() as database:
            opened = open_runs(database, runs)
            check_out(out, known)
            compared = compare(database, opened, on_stage, show_text)
            tables = compared.measured.tables
            drawn = draw(tables, compared.names, on_stage)
            on_stage("page")
            page = render(compared.runs, SECTIONS, compared.measured, drawn, compared.notes)
    except (
        OSError
    ) as error:  # of the temporary folders that DuckDB spills into and figures are drawn in
        where = f"the report cannot be made in {gettempdir()}"
        raise StoreError(f"{where}: {reason(error)}; TMPDIR names another folder") from error
    csv_files = {f"tables/{name}.csv": to_csv(table) for name, table in tables.items()}
    images = {
        f"figures/{name}.{kind}": getattr(one, kind)
        for name, one in drawn.items()
        for kind in ("png", "svg")
    }
    replace_report(out, csv_files | images, page.encode(), known)
    tables_there, figures_there = (
        tuple(out / name for name in files) for files in (csv_files, images)
    )
    return Report(out / INDEX, tables_there, figures_there, tuple(compared.notes))


def compare(
    database: duckdb.DuckDBPyConnection,
    runs: Sequence[Run],
    on_stage: OnStage,
    show_text: bool = False,
) -> Compared:
    """All tables of all runs, and what is missing."""
    found = [measure_run(database, run, SECTIONS[1:], on_stage) for run in runs]
    readable = [run for run, _ in found]
    measured = Measured()
    parts: dict[str, list[pa.Table]] = {}
    for run, of_run in found:
        if run.is_gated and not show_text:
            redact(run.name, of_run)
        for name, table in of_run.tables.items():
            parts.setdefault(name, []).append(table)
        for name, lines in of_run.notes.items():
            measured.note(name, lines)
    measured.tables |= concatenated(parts)
    on_stage("comparing runs")
    measure_accuracy(readable, [of_run.graded for _, of_run in found], ACCURACY.name, measured)
    for section in SECTIONS:
        measure_together(readable, section, measured)
    return Compared(readable, measured)


def known_files() -> set[str]:
    """Names, within its folder, of all tables and figures that a report may have."""
    tables = {f"tables/{name}.csv" for section in SECTIONS for name in tables_of(section)}
    names = [drawing.name for section in SECTIONS for drawing in section.drawings]
    return tables | {f"figures/{name}.{kind}" for name in names for kind in ("png", "svg")}


def draw(
    tables: Mapping[str, pa.Table], names: Sequence[str], on_stage: OnStage
) -> dict[str, Drawn]:
    """The figures whose tables are there, by name."""
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
