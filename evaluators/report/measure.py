"""All measurements of all runs: one table each, with a first column `run`.

What cannot be measured becomes a note. A run is measured on its own first. If a part turns out to
be damaged while it is read, the run is opened again without its damaged parts and measured anew, so
that all its numbers are of the same responses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from engine.errors import StoreError
from engine.store.schema import VOCABULARY
from engine.store.tables import decodes
from engine.system.terminal import one_line
from evaluators.database.run_tables import NotMeasurable, RunTables
from evaluators.report.comparison import checkpoints, compared_with, controls
from evaluators.report.completeness import completeness_notes
from evaluators.report.grades import read_graded
from evaluators.report.runs import Run, open_as
from evaluators.report.section import Section
from evaluators.scores.by_arm import GradedRun, accuracy_by_budget, accuracy_differences

OnStage = Callable[[str], None]
Notes = dict[str, list[str]]  # what is missing, by the name of the section


@dataclass(slots=True)
class Results:
    """The results of all measurements."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    """By the name of their CSV file, without its suffix."""
    notes: Notes = field(default_factory=dict)

    def note(self, section: str, lines: Sequence[str]) -> None:
        """Add notes on what is missing in a section, each once."""
        known = self.notes.setdefault(section, [])
        known += [line for line in dict.fromkeys(map(one_line, lines)) if line not in known]


@dataclass(slots=True)
class RunResults(Results):
    """The results of one run, and its grades."""

    graded: GradedRun | None = None


def measure_run(
    database: duckdb.DuckDBPyConnection, run: Run, sections: Sequence[Section], on_stage: OnStage
) -> tuple[Run, RunResults]:
    """Measure one run.

    Args:
        database: Where the run is opened.
        run: The run.
        sections: The sections whose measurements are made.
        on_stage: Called with the name of each stage when it begins.

    Returns:
        The run as it was read, which may be without its damaged parts, and its results.
    """
    try:
        return run, _measure_run(run, sections, on_stage)
    except StoreError:
        on_stage(f"{run.name}: looking for damaged parts")
    undamaged = open_as(database, run.path, run.name, decode=True)
    try:
        return undamaged, _measure_run(undamaged, sections, on_stage, is_last=True)
    except StoreError as error:
        no_results = RunResults()
        no_results.note("accuracy", [f"{run.name}: nothing could be measured: {error}"])
        return undamaged, no_results


def measure_accuracy(
    runs: Sequence[Run], graded: Sequence[GradedRun | None], section: str, results: Results
) -> None:
    """Add the tables `accuracy` and `accuracy_differences`, of each run and between runs.

    Args:
        runs: The runs.
        graded: The grades of each run, None where it has none.
        section: The section of the notes.
        results: Where tables and notes are added.
    """
    control_of, notes = controls(runs)
    graded_by_name = {run.name: grades for run, grades in zip(runs, graded, strict=True) if grades}
    graded_runs = [run for run in runs if run.name in graded_by_name]
    accuracy, differences = [], []
    for run in graded_runs:
        others, unpaired = compared_with(run, graded_runs, control_of)
        notes += unpaired
        grades = graded_by_name[run.name]
        of_arms = accuracy_by_budget(grades, run.name in control_of, run.is_scored)
        accuracy.append(with_run(run.name, of_arms))
        if not run.is_scored:  # else they are those of the run that was scored
            against = [graded_by_name[other.name] for other in others]
            differences.append(with_run(run.name, accuracy_differences(grades, against)))
    results.tables |= concatenate({"accuracy": accuracy, "accuracy_differences": differences})
    results.note(section, notes)


def measure_together(runs: Sequence[Run], section: Section, results: Results) -> None:
    """Add the section's tables of checkpoints, if at least two measured the same responses.

    Args:
        runs: The runs.
        section: The section.
        results: Where tables and notes are added.
    """
    if not section.compares:
        return
    ordered, notes = checkpoints(runs)
    results.note(section.name, notes)
    opened = [run.tables for run in ordered if run.tables]
    for comparison in section.compares if len(opened) > 1 else ():
        try:
            results.tables |= concatenate({comparison.table: [comparison.measure(opened)]})
        except (NotMeasurable, StoreError) as error:
            results.note(section.name, [str(error)])


def concatenate(parts: dict[str, list[pa.Table]]) -> dict[str, pa.Table]:
    """Concatenate the parts of each table; tables without a row are left out."""
    with_rows = {name: [part for part in tables if part.num_rows] for name, tables in parts.items()}
    return {
        name: pa.concat_tables(tables, promote_options="permissive")
        for name, tables in with_rows.items()
        if tables
    }


def with_run(name: str, table: pa.Table) -> pa.Table:
    """The table with a first column `run`."""
    return table.add_column(0, "run", pa.array([name] * table.num_rows, pa.string()))


def redact(name: str, results: RunResults) -> None:
    """Remove the tables that contain tokens, as text or as ids, of a run on a gated set.

    Responses to a gated set must not be published.
    """
    tables = [table for table, rows in results.tables.items() if "token" in rows.column_names]
    for table in tables:
        del results.tables[table]
    if tables:
        results.note(
            "identity", [f"{name}: a gated set, whose tokens are not shown: --show-text shows them"]
        )


def _measure_run(
    run: Run, sections: Sequence[Section], on_stage: OnStage, is_last: bool = False
) -> RunResults:
    """Measure a run; with `is_last` a damaged part becomes a note.

    Raises:
        StoreError: A part turns out to be damaged, and it is not the last attempt.
    """
    results = RunResults()
    on_stage(f"{run.name}: accuracy")
    results.graded, notes = read_graded(run)
    results.note("accuracy", notes)
    if run.tables is None:
        return results
    results.note("accuracy", completeness_notes(run))
    if not _has_measured(run.tables):
        results.note(
            sections[0].name,
            [f"{run.name}: no position was measured by both policies, so accuracy is all"],
        )
        return results
    results.note("identity", _vocabulary_notes(run))
    for section in sections:
        if section.measurements:
            on_stage(f"{run.name}: {section.name}")
            _measure_section(run.tables, section, results, is_last)
    return results


def _measure_section(
    tables: RunTables, section: Section, results: RunResults, is_last: bool
) -> None:
    empty: dict[str, list[str]] = {}
    for measurement in section.measurements:
        try:
            table = measurement.measure(tables)
        except (NotMeasurable, StoreError) as error:
            if isinstance(error, StoreError) and not is_last:
                raise
            results.note(section.name, [f"{tables.name}: {error}"])
            continue
        if table.num_rows:
            results.tables[measurement.table] = with_run(tables.name, table)
        else:
            empty.setdefault(measurement.empty, []).append(measurement.table)
    lines = [
        f"{tables.name}: {reason}, so it has no {', '.join(missing)}"
        for reason, missing in empty.items()
    ]
    results.note(section.name, lines)


def _vocabulary_notes(run: Run) -> list[str]:
    file = run.path / "vocabulary.parquet"
    if decodes(file, VOCABULARY):
        return []
    problem = (
        "its vocabulary.parquet cannot be read" if file.exists() else "holds no vocabulary.parquet"
    )
    return [f"{run.name}: {problem}, so its tokens are shown by their ids"]


def _has_measured(tables: RunTables) -> bool:
    return bool(tables.query(f"SELECT 1 FROM {tables.measured} LIMIT 1").num_rows)
