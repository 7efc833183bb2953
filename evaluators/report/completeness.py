"""How much of what a run asked for is there: what is missing, or there twice, changes every number
of the report.
"""

from __future__ import annotations

from engine.core import TRAJECTORY_KEY
from engine.errors import RunDirectoryError
from engine.store.manifest import expected_section
from engine.store.schema import expected_trajectories
from evaluators.report.runs import Run


def num_there(run: Run) -> int:
    """Responses that can be read. Raises StoreError where a part turns out to be damaged."""
    return _count(run, "count(*)")


def num_expected(run: Run) -> int | None:
    """Trajectories of the whole run; None where run.json does not say."""
    try:
        return len(expected_trajectories(expected_section(run.manifest, run.path)))
    except RunDirectoryError:  # someone has edited it
        return None


def completeness_notes(run: Run) -> list[str]:
    """A line for what is missing, and one for what is there more than once. Raises StoreError as
    `num_there` does.
    """
    there, expected = num_there(run), num_expected(run)
    once = _count(run, f"count(DISTINCT ({', '.join(TRAJECTORY_KEY)}))")
    notes = []
    if expected is not None and once < expected:
        missing = (
            f"{expected - once:,} of {expected:,} trajectories are missing, and all numbers are of"
            " the rest alone"
        )
        notes.append(
            f"{run.name}: {missing} (what ends early is there first): the command that made it"
            " resumes it"
        )
    if there > once:
        notes.append(
            f"{run.name}: {there - once:,} trajectories are there more than once and count as"
            " often: `xsample verify` lists them"
        )
    return notes


def _count(run: Run, what: str) -> int:
    if run.tables is None:
        return 0
    return int(
        run.tables.query(f"SELECT {what} AS num FROM {run.tables.responses}")["num"][0].as_py()
    )
