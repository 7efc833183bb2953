"""Whether a run is complete: missing or repeated trajectories change every number of a report."""

from __future__ import annotations

from engine.core import TRAJECTORY_KEY
from engine.errors import RunDirectoryError
from engine.store.manifest import expected_section
from engine.store.schema import expected_trajectories
from evaluators.report.runs import Run


def num_readable(run: Run) -> int:
    """The number of responses that can be read.

    Raises:
        StoreError: A part turns out to be damaged.
    """
    return _count(run, "count(*)")


def num_expected(run: Run) -> int | None:
    """The number of trajectories of the whole run; None where run.json does not contain it."""
    try:
        return len(expected_trajectories(expected_section(run.manifest, run.path)))
    except RunDirectoryError:  # someone has edited run.json
        return None


def completeness_notes(run: Run) -> list[str]:
    """A note if trajectories are missing, and a note if some occur more than once.

    Raises:
        StoreError: A part turns out to be damaged.
    """
    readable, expected = num_readable(run), num_expected(run)
    distinct = _count(run, f"count(DISTINCT ({', '.join(TRAJECTORY_KEY)}))")
    notes = []
    if expected is not None and distinct < expected:
        missing = (
            f"{expected - distinct:,} of {expected:,} trajectories are missing, and all numbers are"
            " of the rest alone"
        )
        notes.append(
            f"{run.name}: {missing} (short responses finish first): the command that made it"
            " resumes it"
        )
    if readable > distinct:
        notes.append(
            f"{run.name}: {readable - distinct:,} trajectories occur more than once and count as"
            " often: `xsample verify` lists them"
        )
    return notes


def _count(run: Run, aggregate: str) -> int:
    if run.tables is None:
        return 0
    counted = run.tables.query(f"SELECT {aggregate} AS num FROM {run.tables.responses}")
    return int(counted["num"][0].as_py())
