"""RunStore: one run directory on disk; what was committed there, and how more is added without ever
losing it.

A commit is a tokens part, then the responses part of the same number. The responses part is the
completion marker: without it the tokens part does not count. Every file is written under a hidden
name in its own folder, synced, and renamed. One process writes (a lock that the kernel releases),
any number read. Knows nothing of models or Ray, and keeps nothing of what it wrote in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa

from engine.core import TRAJECTORY_KEY, Failure, Grade, Problem
from engine.errors import RunDirectoryError, StoreError
from engine.shard import WHOLE, Shard
from engine.store.folder import FolderLock, check_is_run, contents, create_folder
from engine.store.manifest import section
from engine.store.parts import (
    FOLDERS,
    PartFiles,
    drop_uncommitted,
    list_parts,
    marked,
    part_name,
    part_numbers,
    refuse_unreadable,
)
from engine.store.run_reader import RunReader, read_manifest, refuse_foreign
from engine.store.schema import (
    FAILURES,
    GRADES,
    PROBLEMS,
    RESPONSES,
    SCHEMA_VERSION,
    TOKENS,
    VOCABULARY,
)
from engine.store.tables import conform, from_rows, write_table
from engine.system.files import reason, remove, sync_folder, write_json

ROWS_PER_GROUP = {
    "tokens": 1 << 17,
    "responses": 256,
}  # both a few MiB: what a reader of one response must decode
_ABSENT = "nothing"


class RunStore(RunReader):
    """A run directory to write and read: `open` to make or resume a run, `read` to grade one.

    Args:
        path: The run directory.
        manifest: Its run.json.
        lock: What keeps other writers out; None where no parts are written.
        shard: The share of the run that is written here.
    """

    def __init__(
        self,
        path: Path,
        manifest: dict[str, Any],
        lock: FolderLock | None = None,
        shard: Shard = WHOLE,
    ) -> None:
        super().__init__(path, manifest)
        self._lock, self._shard, self._grows = lock, shard, lock is not None
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
            _refuse_difference(path, read_manifest(path), _plain(manifest))

    @classmethod
    def read(cls, path: Path) -> RunStore:
        """A run directory as it is now, to grade and summarise, also while it grows.

        Raises:
            RunDirectoryError: There is no run directory, or one of another version.
            StoreError: run.json cannot be read, or parts of another run are in the directory.
        """
        check_is_run(path)
        store = cls(path, read_manifest(path))
        refuse_foreign(path, store.fingerprint)
        return store

    def parts(self) -> list[PartFiles]:
        """The committed parts. Who writes sees them all; who only reads, those of the opening."""
        return list_parts(self.path) if self._grows else super().parts()

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

    def write_problems(self, problems: Iterable[Problem], gated: bool) -> None:
        """Keep what grading needs of the problems, if it is not there: a re-grade must not depend
        on a hub.
        """
        if not (self.path / "problems.parquet").exists():
            rows = [(p.id, None if gated else p.question, p.answer, p.options) for p in problems]
            write_table(self.path / "problems.parquet", from_rows(rows, PROBLEMS), 1 << 10)

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

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Replace failures.parquet: the trajectories that were given up, and why; without any there
        is no file.
        """
        rows = [(*failure.key, *failure[1:]) for failure in failures]
        if rows:
            write_table(self.path / "failures.parquet", from_rows(rows, FAILURES), 1 << 16)
        else:
            remove(self.path / "failures.parquet")

    def write_grades(self, grades: Iterable[Grade]) -> None:
        """Replace grades.parquet, in the order of the keys: the same grades are the same bytes."""
        table = from_rows([(*grade.key, *grade[1:]) for grade in grades], GRADES)
        ordered = table.sort_by([(name, "ascending") for name in TRAJECTORY_KEY])
        write_table(self.path / "grades.parquet", ordered, 1 << 16)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json; numbers that are not finite become null."""
        write_json(self.path / "summary.json", summary)


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
        stored = read_manifest(path)
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
