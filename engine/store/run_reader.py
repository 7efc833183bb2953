"""RunReader: what a run directory holds, strictly or as far as it can be read.

Strictly, anything that is damaged, of another version or of another run is an error: what is
graded, matched or resumed must be whole. Leniently, it is a note and the rest is given: a report or
a page shows what there is. No lock is taken, so a run may grow while it is read; a reader sees the
parts that were there when it was opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.dataset as ds

from engine.core import GRADERS, TRAJECTORY_KEY, Failure, GraderName, Problem, Trajectory
from engine.errors import RunDirectoryError, StoreError
from engine.store.folder import check_is_run
from engine.store.manifest import digest_object, expected_section, section
from engine.store.parts import PartFiles, foreign_parts, list_parts
from engine.store.schema import (
    FAILURES,
    GRADES,
    PROBLEMS,
    RESPONSES,
    SCHEMA_VERSION,
    TOKENS,
    VOCABULARY,
    expected_trajectories,
)
from engine.store.tables import decodes, read_table
from engine.system.files import read_json, reason

T = TypeVar("T")
D = TypeVar("D")


class RunReader:
    """A run directory to read. Make one with `read_run`.

    Args:
        path: The run directory.
        manifest: Its run.json.
        notes: What is damaged, missing or left out, a line each.
        left_out: Names of parts that belong to another run.
    """

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        notes: Sequence[str] = (),
        left_out: frozenset[str] = frozenset(),
    ) -> None:
        self.path, self.manifest, self.notes = path, manifest, list(notes)
        self.fingerprint = digest_object(section(manifest, "identity"))
        # Fixed now: what is graded is what is summarised, though the run goes on.
        self._parts = [part for part in list_parts(path) if part.name not in left_out]

    def parts(self) -> list[PartFiles]:
        """The committed parts, in the order of their numbers."""
        return self._parts

    def done(self) -> set[Trajectory]:
        """The trajectories that are committed, read from the parts."""
        table = self.responses(TRAJECTORY_KEY)
        return set(map(Trajectory, *(table.column(name).to_pylist() for name in TRAJECTORY_KEY)))

    def response_parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of the committed responses, a part at a time.

        All at once may not fit into memory.
        """
        schema = pa.schema([RESPONSES.field(name) for name in columns], RESPONSES.metadata)
        for part in self.parts():
            yield read_table(part.responses, schema)

    def responses(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All committed responses in the order of their commits, or these columns of them."""
        names = RESPONSES.names if columns is None else list(columns)
        schema = pa.schema([RESPONSES.field(name) for name in names], RESPONSES.metadata)
        tables = list(self.response_parts(names))
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def tokens(self) -> ds.Dataset:
        """The committed tokens as a dataset, to be filtered and streamed."""
        files = [str(part.tokens) for part in self.parts()]
        try:
            return ds.dataset(files, schema=TOKENS, format="parquet")
        except OSError as error:
            raise StoreError(
                f"{self.path}/tokens cannot be read: {reason(error)}; see `xsample verify`"
            ) from error

    def unreadable(self) -> list[Path]:
        """Every file of the run that is missing or cannot be decoded to its last row.

        Reads everything.
        """
        files = [(part.tokens, TOKENS) for part in self.parts()]
        files += [(part.responses, RESPONSES) for part in self.parts()]
        if "task" in self.manifest:
            files.append((self.path / "problems.parquet", PROBLEMS))
        optional = {
            "vocabulary.parquet": VOCABULARY,
            "grades.parquet": GRADES,
            "failures.parquet": FAILURES,
        }
        for name, schema in optional.items():
            if (self.path / name).exists():
                files.append((self.path / name, schema))
        return [file for file, schema in files if not decodes(file, schema)]

    @property
    def grader(self) -> GraderName:
        """How the run compares answers.

        Raises:
            RunDirectoryError: run.json does not say so.
        """
        name = section(self.manifest, "task").get("grader")
        if name not in GRADERS:
            known = "|".join(GRADERS)
            raise RunDirectoryError(
                f"{self.path}/run.json: grader is {name!r:.60}: give one, --grader {known}"
            )
        return cast(GraderName, name)

    @property
    def graded_by(self) -> GraderName:
        """What graded the run: as its summary says, which a re-grade replaces, or else run.json."""
        summary = or_note(self.summary, None, notes=[]) or {}
        names = (summary.get("grader"), section(self.manifest, "task").get("grader"))
        return cast(GraderName, next((name for name in names if name in GRADERS), "math"))

    def expected(self) -> dict[Trajectory, None]:
        """The trajectories of the whole run, in its order.

        Raises:
            RunDirectoryError: run.json does not say which.
        """
        return expected_trajectories(expected_section(self.manifest, self.path))

    @property
    def num_expected(self) -> int:
        """Trajectories of the whole run."""
        return len(self.expected())

    def problem_rows(self) -> pa.Table:
        """The problems as they were asked, a row each; question null when their set is gated."""
        return read_table(self.path / "problems.parquet", PROBLEMS)

    def problems(self) -> list[Problem]:
        """The problems as they were asked; the question is empty when their set is gated."""
        return [
            Problem(
                row["problem"],
                row["question"] or "",
                row["answer"],
                row["options"] and tuple(row["options"]),
            )
            for row in self.problem_rows().to_pylist()
        ]

    def vocabulary(self) -> dict[int, str]:
        """Token id -> its text by itself; empty where it was not kept."""
        file = self.path / "vocabulary.parquet"
        if not file.exists():
            return {}
        table = read_table(file, VOCABULARY)
        return dict(zip(table["token"].to_pylist(), table["text"].to_pylist(), strict=True))

    def failure_rows(self) -> pa.Table:
        """The trajectories that the last session gave up, a row each."""
        file = self.path / "failures.parquet"
        return read_table(file, FAILURES) if file.exists() else FAILURES.empty_table()

    def failures(self) -> list[Failure]:
        """The trajectories that the last session gave up."""
        rows = self.failure_rows().to_pylist()
        return [
            Failure(Trajectory(*(row.pop(name) for name in TRAJECTORY_KEY)), **row) for row in rows
        ]

    def grades(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The grades, or these columns of them.

        Raises:
            RunDirectoryError: The run was not graded yet.
        """
        self._require("grades.parquet")
        names = GRADES.names if columns is None else list(columns)
        schema = pa.schema([GRADES.field(name) for name in names], GRADES.metadata)
        return read_table(self.path / "grades.parquet", schema)

    def summary(self) -> dict[str, Any]:
        """The summary.

        Raises:
            RunDirectoryError: The run was not summarised yet.
        """
        self._require("summary.json")
        return read_json(self.path / "summary.json")

    def _require(self, name: str) -> None:
        if not (self.path / name).exists():
            raise RunDirectoryError(
                f"{self.path} holds no {name} yet: run `xsample grade {self.path}` first"
            )


def read_run(path: Path, strict: bool = True, keep_foreign: bool = False) -> RunReader:
    """Open a run directory to read it, as it is now.

    Args:
        path: The run directory.
        strict: Raise an error for a run.json that cannot be read or is of another version, and for
            parts of another run; else note these, and leave such parts out.
        keep_foreign: Take parts of another run as they are, to look at them.

    Raises:
        RunDirectoryError: There is no run directory; strictly, one of another version.
        StoreError: Strictly, run.json cannot be read, or a part is of another run.
    """
    check_is_run(path)
    if strict:
        reader = RunReader(path, read_manifest(path))
        if not keep_foreign:
            refuse_foreign(path, reader.fingerprint)
        return reader
    manifest, notes = _manifest_and_notes(path)
    fingerprint = digest_object(section(manifest, "identity"))
    foreign = frozenset(file.name for file in foreign_parts(path, fingerprint))
    if foreign == {part.name for part in list_parts(path)}:
        foreign = frozenset()  # then it is run.json that somebody has changed
    notes += [f"{name} is left out: it is a part of another run" for name in sorted(foreign)]
    return RunReader(path, manifest, notes, foreign)


def or_note(read: Callable[[], T], otherwise: D, notes: list[str]) -> T | D:
    """What `read` returns; where that is damaged or missing, `otherwise` and a note."""
    try:
        return read()
    except (StoreError, RunDirectoryError) as error:
        notes.append(str(error))
        return otherwise


def read_manifest(path: Path) -> dict[str, Any]:
    """The run.json of a run of this version.

    Raises:
        RunDirectoryError: It is of another version.
        StoreError: It cannot be read.
    """
    manifest = read_json(path / "run.json")
    version = manifest.get("schema_version", "nothing")
    if version != SCHEMA_VERSION:
        raise RunDirectoryError(
            f"{path} has schema_version {version!s:.60}, this xsample writes {SCHEMA_VERSION}: "
            "use the xsample version that made it, or another --out"
        )
    return manifest


def refuse_foreign(path: Path, run: str) -> None:
    """Raise StoreError where a part is not of the run with this fingerprint."""
    for part in foreign_parts(path, run):
        raise StoreError(
            f"{part} is a part of another run: move it out of {path}, with the file of that name in"
            " the other folder"
        )


def _manifest_and_notes(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        manifest = read_json(path / "run.json")
    except StoreError as error:
        return {}, [f"{error}: its settings are not known"]
    version = manifest.get("schema_version")
    if version == SCHEMA_VERSION:
        return manifest, []
    return manifest, [f"its schema_version is {version}, now {SCHEMA_VERSION}"]
