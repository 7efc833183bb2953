"""Session: the private folder of a run on this machine while it works: Ray's session, the engines' sockets, a token.

It is locked for as long as its process lives, and removed at the end with whatever still runs in it. What a killed
process left behind is removed by whoever opens the next session. Processes are known by an environment variable that
they inherit.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

VARIABLE = "XSAMPLE_SESSION"
_PREFIX = "xsample-"
# A Unix socket's path has at most 107 bytes; the longest name below a session's folder is that of Ray's object store.
_LONGEST_SOCKET = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
MOST_BYTES = 107 - _LONGEST_SOCKET - len(f"/{_PREFIX}12345678")
_SHARED_MEMORY = Path("/dev/shm")


def root() -> Path:
    """Where sessions are: TMPDIR, or /tmp where that path is too long for a socket below it."""
    folder = tempfile.gettempdir()
    return Path(folder if len(os.fsencode(folder)) <= MOST_BYTES else "/tmp")


@contextmanager
def session() -> Iterator[Path]:
    """A new private folder for this block. What runs with it in its environment ends with the block."""
    remove_abandoned()
    folder, lock = _create()
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def remove_abandoned() -> None:
    """End the processes and remove the folders of sessions whose own process is dead."""
    with suppress(OSError):
        for folder in root().glob(f"{_PREFIX}*"):
            lock = _lock(folder)
            if lock is not None:
                _remove(folder)
                os.close(lock)


@contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """These environment variables inside the block, None: not set. What is started there inherits them."""
    before = {name: os.environ.get(name) for name in variables}
    _set(variables)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _create() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root()))
        lock = _lock(folder)
        if lock is not None and os.fstat(lock).st_nlink:  # else another run took it for abandoned in between
            return folder, lock


def _lock(folder: Path) -> int | None:
    """The lock of a session, as a descriptor; None if it is held, or is not ours."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(descriptor).st_uid == os.getuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove(folder: Path) -> None:
    processes = [process for process in psutil.process_iter() if _is_of(process, folder)]
    shared = {file for process in processes for file in _shared_memory(process)}
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
    for file in shared:
        with suppress(OSError):
            file.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _is_of(process: psutil.Process, folder: Path) -> bool:
    """By its environment; one of Ray's, whose title is written over its environment, by its log."""
    try:
        if process.pid == os.getpid():
            return False
        if process.environ().get(VARIABLE) == str(folder):
            return True
        is_of_ray = " ".join(process.cmdline()).startswith("ray::")
        return is_of_ray and any(Path(file.path).is_relative_to(folder) for file in process.open_files())
    except (psutil.Error, OSError):
        return False


def _shared_memory(process: psutil.Process) -> list[Path]:
    """Named shared memory that a process has open: who is killed cannot take it away."""
    try:
        mapped = {Path(each.path) for each in process.memory_maps()}
    except (psutil.Error, OSError):
        return []
    return [file for file in mapped if file.parent == _SHARED_MEMORY]
