"""The folder of a run: where a run can go, which folder holds one, and the lock of its writers."""

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
    """Create the folder of a run, if it does not exist.

    Args:
        path: The run directory.

    Raises:
        RunDirectoryError: No run can go there.
    """
    contents(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"--out {path} cannot be used: {reason(error)}; give another folder"
        ) from None


def contents(path: Path) -> set[str]:
    """The names in a folder, without locks and temporary files; none if it does not exist.

    Args:
        path: The run directory.

    Raises:
        RunDirectoryError: No run can go there: it is a file, cannot be read, or holds other files.
    """
    # The functions of os.path never raise, unlike the methods of Path.
    if os.path.exists(path) and not os.path.isdir(path):
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
    """Check that a folder holds a run.json.

    Args:
        path: The run directory.

    Raises:
        RunDirectoryError: There is no run.json.
    """
    if os.path.isfile(path / "run.json"):
        return
    if os.path.isdir(path):
        fault = "holds no run.json"
    elif os.path.exists(path):
        fault = "is a file"
    else:
        fault = "does not exist"
    raise RunDirectoryError(
        f"run directory {path} {fault}: give the --out folder of an `xsample run`"
    )


class FolderLock:
    """The lock of a run directory, held from its creation until `close`.

    Args:
        path: The run directory.
        shard: The shard that this process writes; shards of the same total share the lock.

    Raises:
        RunDirectoryError: Another process holds the lock, or the folder cannot be written.
    """

    def __init__(self, path: Path, shard: Shard = WHOLE) -> None:
        self._path, self._shard = path, shard
        self.note = ""
        """What the user should know of the lock; empty if nothing."""
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
        """Release the lock."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    @property
    def _holder(self) -> str:
        return f"process {os.getpid()} on {socket.gethostname()}"

    @property
    def _shards(self) -> str:
        return f"{self._shard.total} shards"

    def _share(self) -> None:
        """Lock the folder together with other shards, if they are of the same total."""
        gate = self._open(".lock-shards")
        try:
            # Without flock there is no lock either, and `_take` says so.
            with suppress(OSError):
                # For milliseconds: one shard at a time creates the lock, or joins it.
                fcntl.flock(gate, fcntl.LOCK_EX)
            try:
                self._admit_others(self._take(".lock", fcntl.LOCK_EX, self._shards))
            except RunDirectoryError:
                lock = self._take(".lock", fcntl.LOCK_SH, None)
                if (holder := _read(lock)) != self._shards:
                    raise self._in_use(holder) from None
        finally:
            os.close(gate)

    def _admit_others(self, lock: int) -> None:
        """Turn the exclusive lock into a shared one."""
        try:
            # flock releases the lock for a moment: a whole run may get in between.
            _try(lock, fcntl.LOCK_SH)
        except BlockingIOError:
            raise self._in_use(_read(lock)) from None
        except OSError:
            pass  # there is no flock, as `_take` has noted

    def _take(self, name: str, kind: int, note: str | None) -> int:
        """Lock a file of the folder and, with a note, write into it who holds the lock."""
        lock = self._open(name)
        try:
            _try(lock, kind)
        except BlockingIOError:
            holder = _read(lock)
            os.close(lock)
            raise self._in_use(holder) from None
        except OSError as error:
            # Some cluster file systems are mounted without flock.
            self.note = (
                f"{self._path} cannot be locked ({reason(error)}): start no second run with it"
            )
        self._descriptors.append(lock)
        if note is not None:
            # The note only serves the process that is refused.
            with suppress(OSError):
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
    """Who holds the lock, by the note in its file."""
    return os.pread(lock, 200, 0).decode(errors="replace").strip()


def _try(lock: int, kind: int) -> None:
    """Lock a file without waiting.

    Raises:
        BlockingIOError: Another process holds the lock.
    """
    fcntl.flock(lock, kind | fcntl.LOCK_NB)
