"""RunStore: one run directory on disk, and how a run adds to it without ever losing a response.

A commit is a tokens part, then the responses part of the same number. The responses part is the
completion marker: without it the tokens part does not count. Every file is written under a hidden
name in its own folder, synced, and renamed. One process writes, or one per shard, under a lock that
the kernel releases; any number of processes read. The store knows nothing of models or Ray, and
keeps no copy in memory of the parts that it wrote.
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

# Both are a few MiB: a reader of one response must decode a whole group.
ROWS_PER_GROUP = {"tokens": 1 << 17, "responses": 256}
_ABSENT = "nothing"


class RunStore(RunReader):
    """A run directory to write and read: `open` creates or resumes a run, `read` is for grading.

    Args:
        path: The run directory.
        manifest: Its run.json.
        lock: The lock that keeps other writers out; None if no parts are written.
        shard: The shard of the run that this process writes.
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
        """What the user should know of the lock; empty if nothing."""
        self._next_part = shard.first_part(part_numbers(path / "responses"))

    @classmethod
    def open(cls, path: Path, manifest: dict[str, Any], shard: Shard = WHOLE) -> RunStore:
        """Create the run directory, or resume the same run.

        Shards of the same total may have it open together.

        Args:
            path: The run directory.
            manifest: The run.json of the run; its `schema_version` is added.
            shard: The shard of the run that this process writes.

        Raises:
            RunDirectoryError: The directory cannot be used, is in use, or holds another run.
            StoreError: A part is missing, cannot be read, or belongs to another run.
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
        """Check that `path` is free or holds the same run; change nothing there.

        Args:
            path: The run directory.
            manifest: The run.json of the run, as for `open`.

        Raises:
            RunDirectoryError: The directory cannot be used, or holds another run.
            StoreError: Its run.json cannot be read.
        """
        if contents(path) and (path / "run.json").exists():
            _refuse_difference(path, read_manifest(path), _plain(manifest))

    @classmethod
    def read(cls, path: Path) -> RunStore:
        """Open a run directory as it is now, to grade and summarise it, also while it grows.

        Args:
            path: The run directory.

        Raises:
            RunDirectoryError: There is no run directory, or one of another version.
            StoreError: run.json cannot be read, or a part belongs to another run.
        """
        check_is_run(path)
        store = cls(path, read_manifest(path))
        refuse_foreign(path, store.fingerprint)
        return store

    def parts(self) -> list[PartFiles]:
        """The committed parts, in the order of their numbers.

        A writer sees all of them; a reader sees those that were there when it opened the run.
        """
        return list_parts(self.path) if self._grows else super().parts()

    def close(self) -> None:
        """Release the lock. Nothing is pending: a commit is on disk when it returns."""
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
        """Add one part, which is on disk when this returns.

        Args:
            tokens: The tokens of the responses, with the columns of `TOKENS`.
            responses: Complete responses, with the columns of `RESPONSES`.

        Raises:
            StoreError: A file cannot be written; the part is there whole, or not at all.
        """
        assert self._lock is not None, "commit needs a store from RunStore.open that is not closed"
        name = part_name(self._next_part)
        # Before the writes: a number is never used again, whatever became of its files.
        self._next_part += self._shard.total
        tables = (conform(tokens, TOKENS), conform(responses, RESPONSES))
        for folder, table in zip(FOLDERS, tables, strict=True):
            write_table(
                self.path / folder / name, marked(table, self.fingerprint), ROWS_PER_GROUP[folder]
            )

    def write_problems(self, problems: Iterable[Problem], gated: bool) -> None:
        """Write problems.parquet, unless it exists, so that a re-grade needs no hub.

        Args:
            problems: The problems of the run.
            gated: Whether their questions must not be published; if so, they are left out.

        Raises:
            StoreError: The file cannot be written.
        """
        if not (self.path / "problems.parquet").exists():
            rows = [(p.id, None if gated else p.question, p.answer, p.options) for p in problems]
            write_table(self.path / "problems.parquet", from_rows(rows, PROBLEMS), 1 << 10)

    def write_vocabulary(self, decode: Callable[[], Sequence[str]]) -> None:
        """Write vocabulary.parquet, unless it exists, so that a reader needs no tokenizer.

        Args:
            decode: Returns the text of every token id, in the order of the ids. It is only called
                if the file does not exist.

        Raises:
            StoreError: The file cannot be written.
        """
        if not (self.path / "vocabulary.parquet").exists():
            write_table(
                self.path / "vocabulary.parquet",
                from_rows(list(enumerate(decode())), VOCABULARY),
                1 << 16,
            )

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Replace failures.parquet; no file is left if there are none.

        Args:
            failures: The trajectories that were given up, and why.

        Raises:
            StoreError: The file cannot be written or removed.
        """
        rows = [(*failure.key, *failure[1:]) for failure in failures]
        if rows:
            write_table(self.path / "failures.parquet", from_rows(rows, FAILURES), 1 << 16)
        else:
            remove(self.path / "failures.parquet")

    def write_grades(self, grades: Iterable[Grade]) -> None:
        """Replace grades.parquet, sorted by trajectory: the same grades give the same bytes.

        Args:
            grades: The grades of the run, in any order.

        Raises:
            StoreError: The file cannot be written.
        """
        table = from_rows([(*grade.key, *grade[1:]) for grade in grades], GRADES)
        ordered = table.sort_by([(name, "ascending") for name in TRAJECTORY_KEY])
        write_table(self.path / "grades.parquet", ordered, 1 << 16)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Replace summary.json; numbers that are not finite become null.

        Args:
            summary: The summary of the run, of values that JSON knows.

        Raises:
            StoreError: The file cannot be written.
        """
        write_json(self.path / "summary.json", summary)


def _plain(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest as it comes back from disk: tuples become lists."""
    plain: dict[str, Any] = json.loads(json.dumps(manifest))
    return plain


def _resume_or_start(path: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    try:
        if not (path / "run.json").exists():
            # Not replaced: another shard may just have written it.
            write_json(path / "run.json", manifest, replace=False)
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


def _refuse_difference(
    path: Path, stored_manifest: dict[str, Any], manifest: dict[str, Any]
) -> None:
    stored, wanted = section(stored_manifest, "identity"), section(manifest, "identity")
    if stored and ("responses" in stored) != ("responses" in wanted):
        maker, command = ("score", "run") if "responses" in stored else ("run", "score")
        raise RunDirectoryError(
            f"--out {path} was made by `xsample {maker}`, this is `xsample {command}`: give"
            " another --out"
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
