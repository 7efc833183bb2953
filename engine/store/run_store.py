"""RunStore: one run directory on disk; what was committed there, and how more is added without ever
losing it.

A commit is a tokens part, then the responses part of the same number. The responses part is the
completion marker: without it the tokens part does not count. Every file is written under a hidden
name in its own folder, synced, and renamed. One process writes (a lock that the kernel releases),
any number read. Knows nothing of models or Ray, and keeps nothing of what it wrote in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import pyarrow as pa
import pyarrow.dataset as ds

from engine.core import GRADERS, TRAJECTORY_KEY, Failure, Grade, GraderName, Problem, Trajectory
from engine.errors import RunDirectoryError, StoreError
from engine.shard import WHOLE, Shard
from engine.store.folder import FolderLock, check_is_run, contents, create_folder
from engine.store.manifest import digest_object, expected_section, section
from engine.store.parts import (
    FOLDERS,
    drop_uncommitted,
    marked,
    part_name,
    part_numbers,
    refuse_foreign,
    refuse_unreadable,
)
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
from engine.store.tables import conform, decodes, from_rows, read_table, write_table
from engine.system.files import read_json, reason, remove, sync_folder, write_json

ROWS_PER_GROUP = {
    "tokens": 1 << 17,
    "responses": 256,
}  # both a few MiB: what a reader of one response must decode
_ABSENT = "nothing"


class RunStore:
    """The run directory `path`. `open` to write (and resume), `read` to read what is committed by
    now.
    """

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        lock: FolderLock | None = None,
        shard: Shard = WHOLE,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.fingerprint = digest_object(section(manifest, "identity"))
        self._lock, self._shard = lock, shard
        # Who only reads sees one state: what it grades is what it summarises, though the run goes
        # on.
        self._seen = None if lock is not None else part_numbers(path / "responses")
        self.note = lock.note if lock else ""
        self._next_part = shard.first_part(part_numbers(path / "responses"))

    @classmethod
    def open(cls, path: Path, manifest: dict[str, Any], shard: Shard = WHOLE) -> RunStore:
        """Create the run directory, or resume the same run; shards of one number may have it open
        together.

        Raises RunDirectoryError if it cannot be used, StoreError if it is damaged.
        """
        create_folder(path)
        lock = FolderLock(path, shard)
        try:
            stored = _resume_or_start(path, _plain({"schema_version": SCHEMA_VERSION} | manifest))
            drop_uncommitted(path, shard)
            store = cls(path, stored, lock, shard)
            refuse_unreadable(path)
            refuse_foreign(path, store.fingerprint)
            return store
        except BaseException:
            lock.close()
            raise

    @classmethod
    def check(cls, path: Path, manifest: dict[str, Any]) -> None:
        """Raise RunDirectoryError if `open` would refuse what is at `path` now; changes nothing."""
        if contents(path) and (path / "run.json").exists():
            _refuse_difference(path, _read_manifest(path), _plain(manifest))

    @classmethod
    def read(cls, path: Path, as_is: bool = False) -> RunStore:
        """A run directory as it is now, to read, grade or summarise, also while it is being
        written. Takes no lock.

        Raises RunDirectoryError where there is none, StoreError where parts of another run are in
        it, unless as_is.
        """
        check_is_run(path)
        store = cls(path, _read_manifest(path))
        if not as_is:
            refuse_foreign(path, store.fingerprint)
        return store

    def close(self) -> None:
        """Let go of the lock. Nothing is pending: every commit is on disk when it returns."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def commit(self, tokens: pa.Table, responses: pa.Table) -> None:
        """Add one part. When this returns it is on disk; when it raises StoreError it is there
        whole, or not at all.
        """
        assert self._lock is not None, "commit needs a store from RunStore.open that is not closed"
        name = part_name(self._next_part)
        self._next_part += (
            self._shard.total
        )  # first: a number is never used again, whatever became of its files
        tables = (conform(tokens, TOKENS), conform(responses, RESPONSES))
        for folder, table in zip(FOLDERS, tables, strict=True):
            write_table(
                self.path / folder / name, marked(table, self.fingerprint), ROWS_PER_GROUP[folder]
            )

    def done(self) -> set[Trajectory]:
        """The trajectories that are committed, read from the parts; ask once, after `open`."""
        table = self.responses(TRAJECTORY_KEY)
        return set(map(Trajectory, *(table.column(name).to_pylist() for name in TRAJECTORY_KEY)))

    def response_parts(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """These columns of the committed responses, a part at a time: all at once may not fit into
        memory.
        """
        schema = pa.schema([RESPONSES.field(name) for name in columns], RESPONSES.metadata)
        for file in self._parts("responses"):
            yield read_table(file, schema)

    def responses(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All committed responses, or only these columns of them, in the order of their commits."""
        schema = (
            RESPONSES
            if columns is None
            else pa.schema([RESPONSES.field(c) for c in columns], RESPONSES.metadata)
        )
        parts = [read_table(file, schema) for file in self._parts("responses")]
        return pa.concat_tables(parts) if parts else schema.empty_table()

    def tokens(self) -> ds.Dataset:
        """The committed tokens as a dataset, to be filtered and streamed: it may not fit into
        memory.
        """
        files = [str(file) for file in self._parts("tokens")]
        try:
            return ds.dataset(files, schema=TOKENS, format="parquet")
        except OSError as error:
            raise StoreError(
                f"{self.path}/tokens cannot be read: {reason(error)}; see `xsample verify`"
            ) from error

    def unreadable(self) -> list[Path]:
        """Every file of the run that is missing or cannot be decoded to its last row. Reads
        everything.
        """
        schemas = {"tokens": TOKENS, "responses": RESPONSES}
        parts = [
            (file, schema) for folder, schema in schemas.items() for file in self._parts(folder)
        ]
        parts += [(self.path / "problems.parquet", PROBLEMS)] if "task" in self.manifest else []
        others = {
            "vocabulary.parquet": VOCABULARY,
            "grades.parquet": GRADES,
            "failures.parquet": FAILURES,
        }
        parts += [
            (self.path / name, schema)
            for name, schema in others.items()
            if (self.path / name).exists()
        ]
        return [file for file, schema in parts if not decodes(file, schema)]

    @property
    def grader(self) -> GraderName:
        """How the run compares answers. Raises RunDirectoryError where run.json does not say so."""
        name = section(self.manifest, "task").get("grader")
        if name not in GRADERS:
            known = "|".join(GRADERS)
            raise RunDirectoryError(
                f"{self.path}/run.json: grader is {name!r:.60}: give one, --grader {known}"
            )
        return cast(GraderName, name)

    def expected(self) -> dict[Trajectory, None]:
        """The trajectories of the whole run, in its order. Raises RunDirectoryError where run.json
        does not say.
        """
        return expected_trajectories(expected_section(self.manifest, self.path))

    @property
    def num_expected(self) -> int:
        """Trajectories of the whole run."""
        return len(self.expected())

    def write_problems(self, problems: Iterable[Problem], gated: bool) -> None:
        """Keep what grading needs of the problems, if it is not there: a re-grade must not depend
        on a hub.
        """
        if not (self.path / "problems.parquet").exists():
            rows = [(p.id, None if gated else p.question, p.answer, p.options) for p in problems]
            write_table(self.path / "problems.parquet", from_rows(rows, PROBLEMS), 1 << 10)

    def problem_rows(self) -> pa.Table:
        """The problems as they were asked, a row each; question null when their set is gated."""
        return read_table(self.path / "problems.parquet", PROBLEMS)

    def problems(self) -> list[Problem]:
        """The problems as they were asked; the question is empty when their set is gated."""
        rows = self.problem_rows().to_pylist()
        return [
            Problem(
                row["problem"],
                row["question"] or "",
                row["answer"],
                row["options"] and tuple(row["options"]),
            )
            for row in rows
        ]

    def write_vocabulary(self, decode: Callable[[], Sequence[str]]) -> None:
        """Keep the text of every token id, if it is not there: who reads the run need not have the
        models.
        """
        if not (self.path / "vocabulary.parquet").exists():
            write_table(
                self.path / "vocabulary.parquet",
                from_rows(list(enumerate(decode())), VOCABULARY),
                1 << 16,
            )

    def vocabulary(self) -> dict[int, str]:
        """Token id -> its text by itself; empty where it was not kept."""
        if not (self.path / "vocabulary.parquet").exists():
            return {}
        table = read_table(self.path / "vocabulary.parquet", VOCABULARY)
        return dict(zip(table["token"].to_pylist(), table["text"].to_pylist(), strict=True))

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Replace failures.parquet: the trajectories that were given up, and why; without any there
        is no file.
        """
        rows = [(*failure.key, *failure[1:]) for failure in failures]
        if rows:
            write_table(self.path / "failures.parquet", from_rows(rows, FAILURES), 1 << 16)
        else:
            remove(self.path / "failures.parquet")

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

    def write_grades(self, grades: Iterable[Grade]) -> None:
        """Replace grades.parquet, in the order of the keys: the same grades are the same bytes."""
        table = from_rows([(*grade.key, *grade[1:]) for grade in grades], GRADES)
        ordered = table.sort_by([(name, "ascending") for name in TRAJECTORY_KEY])
        write_table(self.path / "grades.parquet", ordered, 1 << 16)

    def grades(self) -> pa.Table:
        """The grades. Raises RunDirectoryError when the run was not graded yet."""
        self._require("grades.parquet")
        return read_table(self.path / "grades.parquet", GRADES)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json; numbers that are not finite become null."""
        write_json(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any]:
        """The summary. Raises RunDirectoryError when the run was not graded yet."""
        self._require("summary.json")
        return read_json(self.path / "summary.json")

    def _require(self, name: str) -> None:
        if not (self.path / name).exists():
            raise RunDirectoryError(
                f"{self.path} holds no {name} yet: run `xsample grade {self.path}` first"
            )

    def _parts(self, folder: str) -> list[Path]:
        numbers = part_numbers(self.path / "responses") if self._seen is None else self._seen
        return [self.path / folder / name for _, name in sorted(numbers.items())]


def _plain(manifest: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from disk: tuples are lists."""
    plain: dict[str, Any] = json.loads(json.dumps(manifest))
    return plain


def _resume_or_start(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    try:
        if not (path / "run.json").exists():
            write_json(
                path / "run.json", manifest, replace=False
            )  # another shard may just have done so
        stored = _read_manifest(path)
        _refuse_difference(path, stored, manifest)
        for folder in FOLDERS:
            (path / folder).mkdir(exist_ok=True)
            if (path / folder).is_symlink():
                raise RunDirectoryError(
                    f"--out {path} has a link for {folder}/: a run directory holds its own files"
                )
        sync_folder(path)
    except (OSError, StoreError) as error:
        raise RunDirectoryError(f"--out {path} cannot be used: {reason(error)}") from error
    return stored


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path / "run.json")
    version = manifest.get("schema_version", _ABSENT)
    if version != SCHEMA_VERSION:
        raise RunDirectoryError(
            f"{path} has schema_version {version!s:.60}, this xsample writes {SCHEMA_VERSION}: "
            "use the xsample version that made it, or another --out"
        )
    return manifest


def _refuse_difference(path: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    stored, wanted = section(there, "identity"), section(here, "identity")
    if stored and ("responses" in stored) != ("responses" in wanted):
        made, now = ("score", "run") if "responses" in stored else ("run", "score")
        raise RunDirectoryError(
            f"--out {path} was made by `xsample {made}`, this is `xsample {now}`: give another"
            " --out"
        )
    keys = [*stored, *(key for key in wanted if key not in stored)]
    differing = [
        f"{key} is {wanted.get(key, _ABSENT)!r:.200} here, {stored.get(key, _ABSENT)!r:.200} there"
        for key in keys
        if stored.get(key, _ABSENT) != wanted.get(key, _ABSENT)
    ]
    if differing:
        raise RunDirectoryError(
            f"--out {path} holds another run: {'; '.join(differing)}. Give another --out, or the"
            " same settings"
        )
