"""Run: a run directory in Python, with its tables as Arrow, its numbers and its pages."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from engine.core import GraderName, Trajectory
    from engine.store.run_store import RunStore


class Run:
    """A run directory, finished or still growing, as it was when it was opened.

    Every table is a `pyarrow.Table`: `table.to_pandas()` and `polars.from_arrow(table)` convert it.
    The metadata of its fields has their units and meanings.

    Args:
        path: The `out` of a run.

    Raises:
        RunDirectoryError: It is no run directory.
        StoreError: Parts of another run are in it.

    Example:
        >>> run = xsample.open_run("runs/first")
        >>> run.tokens(["js", "intervened"]).to_pandas().describe()
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        from engine.store.run_store import RunStore

        self.path = Path(path)
        """The run directory."""
        self._store: RunStore = RunStore.read(self.path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}, {self.num_made} of {self.num_expected} trajectories)"

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that the run was made with, by their names in `xsample run`."""
        from engine.store.manifest import section

        return section(self._store.manifest, "config")

    @property
    def num_expected(self) -> int:
        """Trajectories that the whole run has."""
        return self._store.num_expected

    @property
    def num_made(self) -> int:
        """Trajectories that are committed."""
        return len(self._done)

    @property
    def missing(self) -> list[Trajectory]:
        """The trajectories that are not committed, in the order of the run."""
        return [key for key in self._store.expected() if key not in self._done]

    def tokens(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row per token of each trajectory.

        Args:
            columns: Those to read; by default all. The table of a large run does not fit into
                memory: name the columns that you need.
        """
        return self.token_dataset.to_table(columns=None if columns is None else list(columns))

    @property
    def token_dataset(self) -> ds.Dataset:
        """The table of `tokens` as a dataset that is not read yet, to be filtered and streamed."""
        return self._store.tokens()

    def responses(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row per trajectory: its token ids, text, finish reason and interventions.

        Args:
            columns: Those to read; by default all.
        """
        return self._store.responses(columns)

    def grades(self) -> pa.Table:
        """One row per trajectory: the answer, how it was found, and the verdict.

        Raises:
            RunDirectoryError: The run is not graded yet.
        """
        return self._store.grades()

    def problems(self) -> pa.Table:
        """One row per problem: the question and the gold answer."""
        return self._store.problem_rows()

    def failures(self) -> pa.Table:
        """One row per trajectory that was given up, with the error; empty if none was."""
        return self._store.failure_rows()

    def summary(self) -> dict[str, Any]:
        """The numbers of `summary.json`: accuracy, pass@k and maj@k per arm, paired differences.

        Raises:
            RunDirectoryError: The run is not finished yet.
        """
        return self._store.summary()

    def curve(self) -> pa.Table:
        """Accuracy by budget, one row per arm (direction and budget; null is unlimited).

        `accuracy`, `low` and `high` (95 % interval over problems) and the shares are 0 to 1;
        `interventions` and `effective` are means per response.

        Raises:
            RunDirectoryError: The run is not graded yet.
        """
        from engine.core import TRAJECTORY_KEY
        from engine.store.manifest import is_scored
        from evaluators.scores.by_arm import GradedRun, accuracy_by_budget
        from evaluators.scores.outcomes import COUNTED

        store = self._store
        grades, grader = store.grades(), store.grader
        responses = store.responses([*TRAJECTORY_KEY, *COUNTED])
        graded = GradedRun.of(self.path.name, responses, grades, grader)
        is_control = bool(self.settings.get("match"))
        return accuracy_by_budget(graded, is_control, is_scored(store.manifest))

    def grade(self, grader: GraderName | None = None) -> Run:
        """Grade all responses again, write the grades and the summary, and return the run.

        Args:
            grader: `math`, `integer`, `choice` or `exact`; by default as in the run.

        Raises:
            RunDirectoryError: The run has no gold answers, or no responses yet.
        """
        from evaluators.grading.regrade import regrade
        from evaluators.scores.run_summary import summarise_run

        regraded = regrade(self._store, grader)
        summarise_run(self._store, regraded)
        return self

    def report(self, out: str | PathLike[str] | None = None, show_text: bool = False) -> Path:
        """Write figures, tables and one HTML page.

        Args:
            out: The folder of the report; by default `report` in the run directory.
            show_text: Also show the text of a gated set, which must not be published.

        Returns:
            The page.
        """
        from evaluators.report.build import build_report

        folder = self.path / "report" if out is None else Path(out)
        return build_report([self.path], folder, show_text=show_text).index

    def inspect(
        self,
        problem: str,
        sample: int = 0,
        out: str | PathLike[str] | None = None,
        show_text: bool = False,
    ) -> Path:
        """Write the responses to one sample of a problem, token by token, as one HTML page.

        Args:
            problem: Id of the problem.
            sample: Number of the sample, from 0.
            out: The file; by default `inspector/PROBLEM-SAMPLE.html` in the run directory.
            show_text: Also show the text of a gated set, which must not be published.

        Returns:
            The page.

        Raises:
            UsageError: The run has no such problem or sample.
        """
        from engine.system.files import safe_name
        from evaluators.inspector.page import write_page
        from evaluators.inspector.reading import read_sample

        page = self.path / "inspector" / f"{safe_name(problem)}-{sample}.html"
        if out is not None:
            page = Path(out)
        else:
            page.parent.mkdir(exist_ok=True)
        write_page(read_sample(self.path, problem, sample), page, show_text)
        return page

    @cached_property
    def _done(self) -> set[Trajectory]:
        return self._store.done()
