"""The grades of a run as far as they go: what is not graded is left out, with the command for
it.
"""

from __future__ import annotations

import shlex

import pyarrow as pa
import pyarrow.compute as pc

from engine.core import TRAJECTORY_KEY
from engine.errors import StoreError, XsampleError
from engine.store.run_reader import or_note
from engine.store.schema import SCHEMA_VERSION
from engine.system.terminal import one_line
from evaluators.grading.verdict import VERDICTS
from evaluators.report.runs import Run
from evaluators.scores.by_arm import GradedRun
from evaluators.scores.outcomes import COUNTED, prepare_join


def read_graded(run: Run) -> tuple[GradedRun | None, list[str]]:
    """The graded responses of a run, and a line for each thing that is missing.

    Returns:
        None in place of the responses where none has a grade.

    Raises:
        StoreError: A part of the responses is damaged.
    """
    if run.tables is None:
        return None, []  # opening has made a note
    columns = ", ".join((*TRAJECTORY_KEY, *COUNTED))
    responses = run.tables.query(f"SELECT {columns} FROM {run.tables.responses}")
    if not (run.path / "grades.parquet").exists():
        return None, [f"{run.name}: not graded, so there is no accuracy: {_way_out(run)}"]
    try:
        grades = run.reader.grades([*TRAJECTORY_KEY, "verdict", "answer"])
        graded, num_without = _with_grade(prepare_join(responses), prepare_join(grades))
        notes = [_missing(run, num_without, responses.num_rows)] if num_without else []
        if not graded.num_rows:
            return None, notes
        return GradedRun.of(run.name, graded, grades, run.reader.graded_by), notes
    except StoreError:
        again = f"xsample grade {shlex.quote(one_line(run.path))}"
        return None, [
            f"{run.name}: grades.parquet cannot be read, so there is no accuracy: `{again}` makes"
            " it anew"
        ]
    except XsampleError as error:
        return None, [f"{run.name}: there is no accuracy, as {error}"]


def _with_grade(responses: pa.Table, grades: pa.Table) -> tuple[pa.Table, int]:
    """The responses that have a grade with a verdict that we know, and how many have none."""
    known = grades.filter(pc.is_in(grades["verdict"], pa.array(VERDICTS, pa.string())))
    there = responses.join(known.select(TRAJECTORY_KEY), TRAJECTORY_KEY, join_type="left semi")
    return there, responses.num_rows - there.num_rows


def _missing(run: Run, num_without: int, num_responses: int) -> str:
    few = (
        f"{num_without:,} of {num_responses:,} responses have no grade and are left out of accuracy"
    )
    return f"{run.name}: {few}: {_way_out(run)}"


def _way_out(run: Run) -> str:
    if run.manifest.get("schema_version") != SCHEMA_VERSION:
        return "the xsample that made it can grade it"
    if _has_gold_answers(run):
        return f"run `xsample grade {shlex.quote(one_line(run.path))}`"
    return "it keeps no gold answers: score its responses again with --task"


def _has_gold_answers(run: Run) -> bool:
    return bool(or_note(run.reader.problems, None, notes=[]))
