"""The folder of a run: where one can go, and what is one."""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from engine.errors import RunDirectoryError
from engine.shard import WHOLE, Shard
from engine.system.files import is_temporary, reason


def create_folder(path: Path) -> None:
    """Make the folder of a run, if it is not there. Raises RunDirectoryError where no run can
    go.
    """
    contents(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"--out {path} cannot be used: {reason(error)}; give another folder"
        ) from None


def contents(path: Path) -> set[str]:
    """What is in the folder, if there is one. Raises RunDirectoryError where no run can go."""
    if os.path.exists(path) and not os.path.isdir(path):  # unlike those of Path, these never raise
        raise RunDirectoryError(f"--out {path} is a file: give a folder")
    try:
        children = path.iterdir() if os.path.isdir(path) else ()
        names = {
            child.name
            for child in children
            if not child.name.startswith(".lock") and not is_temporary(child)
        }
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"--out {path} cannot be used: {reason(error)}; give another folder"
        ) from None
    if names and "run.json" not in names:
        raise RunDirectoryError(
            f"--out {path} is not empty and holds no run.json: give a new or an empty folder"
        )
    return names


def check_is_run(path: Path) -> None:
    """Raise RunDirectoryError where no run.json is to be read."""
    if not os.path.isfile(path / "run.json"):
        is_there = os.path.exists(path)
        what = (
            "holds no run.json"
            if os.path.isdir(path)
            else "is a file"
            if is_there
            else "does not exist"
        )
        raise RunDirectoryError(
            f"run directory {path} {what}: give the --out folder of an `xsample run`"
        )


class FolderLock:
    """Held from its making to `close`. Raises RunDirectoryError where somebody else holds it.

    note: what the user should know of it, if anything.
    """

    def __init__(self, path: Path, shard: Shard = WHOLE) -> None:
        self._path, self._shard, self.note = path, shard, ""
        self._descriptors: list[int] = []
        try:
            if shard.total > 1:
                self._share()
                self._take(f".lock-{shard.number}-of-{shard.total}", fcntl.LOCK_EX, self._holder)
            else:
                self._take(".lock", fcntl.LOCK_EX, self._holder)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    @property
    def _holder(self) -> str:
        return f"process {os.getpid()} on {socket.gethostname()}"

    @property
    def _shards(self) -> str:
        return f"{self._shard.total} shards"

    def _share(self) -> None:
        """Beside other shards, as long as they are of the same number."""
        gate = self._open(".lock-shards")
        try:
            with suppress(OSError):  # without flock there is no lock either, and `_take` says so
                fcntl.flock(
                    gate, fcntl.LOCK_EX
                )  # for milliseconds: one shard at a time makes the lock, or joins it
            try:
                self._admit_others(self._take(".lock", fcntl.LOCK_EX, self._shards))
            except RunDirectoryError:
                lock = self._take(".lock", fcntl.LOCK_SH, None)
                if (holder := _read(lock)) != self._shards:
                    raise self._in_use(holder) from None
        finally:
            os.close(gate)

    def _admit_others(self, lock: int) -> None:
        try:
            _try(
                lock, fcntl.LOCK_SH
            )  # which lets go of it for a moment: a whole run may get in between
        except BlockingIOError:
            raise self._in_use(_read(lock)) from None
        except OSError:
            pass  # there is no flock, as was said

    def _take(self, name: str, kind: int, note: str | None) -> int:
        """Lock a file of the folder, and write into it who holds it."""
        lock = self._open(name)
        try:
            _try(lock, kind)
        except BlockingIOError:
            holder = _read(lock)
            os.close(lock)
            raise self._in_use(holder) from None
        except OSError as error:  # some cluster file systems are mounted without flock
            self.note = (
                f"{self._path} cannot be locked ({reason(error)}): start no second run with it"
            )
        self._descriptors.append(lock)
        if note is not None:
            with suppress(OSError):  # only for whoever is refused
                os.truncate(lock, 0)
                os.pwrite(lock, f"{note}\n".encode(), 0)
        return lock

    def _open(self, name: str) -> int:
        try:
            return os.open(self._path / name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            way_out = (
                "mend that and run it again"
                if (self._path / "run.json").exists()
                else "give another folder"
            )
            raise RunDirectoryError(
                f"--out {self._path} cannot be written: {reason(error)}; {way_out}"
            ) from None

    def _in_use(self, holder: str) -> RunDirectoryError:
        return RunDirectoryError(
            f"--out {self._path} is in use ({holder}): wait for that run, or give another --out"
        )


def _read(lock: int) -> str:
    return os.pread(lock, 200, 0).decode(errors="replace").strip()


def _try(lock: int, kind: int) -> None:
    """Raises BlockingIOError where somebody else has it."""
    fcntl.flock(lock, kind | fcntl.LOCK_NB)
