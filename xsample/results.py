"""Run: a run directory in Python, with its tables as Arrow, its numbers and its pages."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError

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
        self.path = Path(path).absolute()
        """The run directory."""
        self._open()

    def _open(self) -> None:
        from engine.store.run_store import RunStore

        self._store: RunStore = RunStore.read(self.path)
        self.__dict__.pop("_done", None)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def __fspath__(self) -> str:
        return str(self.path)

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

        Raises:
            ConfigError: The table has no such column.
        """
        from engine.store.schema import TOKENS

        return self.token_dataset.to_table(columns=_known_columns(columns, TOKENS.names))

    @property
    def token_dataset(self) -> ds.Dataset:
        """The table of `tokens` as a dataset that is not read yet, to be filtered and streamed."""
        return self._store.tokens()

    def responses(self, columns: Sequence[str] | None = None) -> pa.Table:
        """One row per trajectory: its token ids, text, finish reason and interventions.

        Args:
            columns: Those to read; by default all.

        Raises:
            ConfigError: The table has no such column.
        """
        from engine.store.schema import RESPONSES

        return self._store.responses(_known_columns(columns, RESPONSES.names))

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
            RunDirectoryError: The run was not summarised yet.
        """
        return self._store.summary()

    def curve(self) -> pa.Table:
        """Accuracy by budget, one row per arm (direction and budget; null is unlimited).

        `accuracy`, `low` and `high` (95 % interval over problems) and the shares are 0 to 1;
        `interventions` and `effective` are means per response.

        Raises:
            RunDirectoryError: The run is not graded yet.
            XsampleError: Some of its responses have no grade, as while it grows.
        """
        from engine.core import TRAJECTORY_KEY
        from engine.store.manifest import is_scored
        from evaluators.scores.by_arm import GradedRun, accuracy_by_budget
        from evaluators.scores.outcomes import COUNTED

        store = self._store
        grades, grader = store.grades(), store.graded_by
        responses = store.responses([*TRAJECTORY_KEY, *COUNTED])
        graded = GradedRun.of(self.path.name, responses, grades, grader)
        is_control = bool(self.settings.get("match"))
        return accuracy_by_budget(graded, is_control, is_scored(store.manifest))

    def grade(self, grader: GraderName | None = None) -> Run:
        """Grade all responses that are there by now, write the grades and the summary.

        Returns:
            The run itself, with the responses that are there by now.

        Args:
            grader: `math`, `integer`, `choice` or `exact`; by default as in the run.

        Raises:
            RunDirectoryError: The run has no gold answers, or no responses yet.
            ConfigError: There is no such grader.
        """
        from evaluators.grading.regrade import regrade
        from evaluators.scores.run_summary import summarise_run

        self._open()  # a run that has grown since must not lose the grades of what has come
        regraded = regrade(self._store, grader)
        summarise_run(self._store, regraded)
        return self

    def report(self, out: str | PathLike[str] | None = None, show_text: bool = False) -> Path:
        """Write figures, tables and one HTML page; what is missing in it is a warning.

        Args:
            out: The folder of the report; by default `report` in the run directory.
            show_text: Also show the text of a gated set, which must not be published.

        Returns:
            The page.
        """
        return write_report([self.path], out, show_text)

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
            StoreError: The page cannot be written.
        """
        from engine.system.files import make_folder, safe_name
        from evaluators.inspector.page import write_page
        from evaluators.inspector.reading import read_sample

        page = self.path / "inspector" / f"{safe_name(problem)}-{sample}.html"
        if out is None:
            make_folder(page.parent)
        else:
            page = Path(out)
        write_page(read_sample(self.path, problem, sample), page, show_text)
        return page

    @cached_property
    def _done(self) -> set[Trajectory]:
        return self._store.done()


def write_report(
    runs: Sequence[Path], out: str | PathLike[str] | None, show_text: bool = False
) -> Path:
    """Write the report of some run directories, and warn of what is missing in it.

    Args:
        runs: The run directories.
        out: The folder of the report. Of one run it is the folder `report` in the run directory.
        show_text: Also show the text of a gated set, which must not be published.

    Returns:
        The page.

    Raises:
        UsageError: A run cannot be read, or the folder cannot be used.
    """
    from evaluators.report.build import build_report

    if out is None:
        if len(runs) != 1:
            raise ConfigError(f"a report of {len(runs)} runs needs a folder: give out")
        out = runs[0] / "report"
    report = build_report(runs, Path(out), show_text=show_text)
    for note in report.notes:
        warnings.warn(note, stacklevel=3)
    return report.index


def _known_columns(columns: Sequence[str] | None, names: Sequence[str]) -> list[str] | None:
    """The columns that are asked for, each known to the table; None for all."""
    if columns is None:
        return None
    wanted = [columns] if isinstance(columns, str) else list(columns)
    for name in wanted:
        if name not in names:
            near = get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"columns has {name!r}, which the table does not have{hint}")
    return wanted
