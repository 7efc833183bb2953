"""Session: the private folder of a run on this machine while it works: Ray's session, the engines'
sockets, a token.

It is locked for as long as its process lives, and removed at the end with whatever still runs in
it. What a killed process left behind is removed by whoever opens the next session. Processes are
known by an environment variable that they inherit.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from engine.errors import ConfigError
from engine.system.files import reason

VARIABLE = "XSAMPLE_SESSION"
_NAME = re.compile(r"xsample-[a-z0-9_]{8}")
# a folder without it is none of ours, whatever its name; its lock is that of the session
_MARK = ".session"
# A Unix socket's path has at most 107 bytes; the longest name below a session's folder is that of
# Ray's object store.
_LONGEST_SOCKET = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
MAX_BYTES = 107 - _LONGEST_SOCKET - len("/xsample-12345678")
_SHARED_MEMORY = Path("/dev/shm")


def root() -> Path:
    """Where sessions are: TMPDIR, or /tmp where that path is too long for a socket below it."""
    try:
        folder = tempfile.gettempdir()
    except OSError:  # none that can be written to
        folder = "/tmp"
    return Path(folder if len(os.fsencode(folder)) <= MAX_BYTES else "/tmp")


@contextmanager
def session() -> Iterator[Path]:
    """A new private folder for this block. What runs with it in its environment ends with the
    block.

    Raises ConfigError where there can be none.
    """
    remove_abandoned()
    try:
        folder, lock = _create(root())
    except OSError as error:
        raise ConfigError(
            f"TMPDIR is {os.environ.get('TMPDIR', 'not set')}, and no folder can be made there or"
            f" in /tmp ({reason(error)}): set TMPDIR to a short path on this machine that you can"
            " write to"
        ) from None
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


@contextmanager
def scratch() -> Iterator[Path]:
    """A new private folder for files, of any size and with paths of any length, in TMPDIR for this
    block.
    """
    remove_abandoned()
    folder, lock = _create(Path(tempfile.gettempdir()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> None:
    """End the processes and remove the folders of sessions whose own process is dead."""
    with suppress(OSError):
        parents = {root(), Path(tempfile.gettempdir())}
        for folder in [
            folder for parent in parents for folder in parent.iterdir() if _is_session(folder)
        ]:
            with suppress(OSError):  # held, or gone, or on a file system without locks
                lock = _lock(folder)
                _remove(folder)
                os.close(lock)


@contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """These environment variables inside the block, None: not set. What is started there inherits
    them.
    """
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


def _create(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix="xsample-", dir=parent))
        mark = os.open(folder / _MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(mark, _host())
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            was_swept = not os.fstat(mark).st_nlink
        except BlockingIOError:
            was_swept = True
        except OSError:  # no locks here: then nobody can sweep it either
            was_swept = False
        if not was_swept:
            return folder, mark
        os.close(mark)  # another run took it for abandoned in between


def _is_session(folder: Path) -> bool:
    """Whether the folder is one that `_create` has made, for this user."""
    if not _NAME.fullmatch(folder.name):
        return False
    found = folder.lstat()
    return (
        stat.S_ISDIR(found.st_mode)
        and stat.S_IMODE(found.st_mode) == 0o700
        and found.st_uid == os.getuid()
    )


def _lock(folder: Path) -> int:
    """The lock of a session, as a descriptor. Raises OSError if it is held, or there is none."""
    mark = os.open(folder / _MARK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if os.read(mark, 300) != _host():  # some shared file systems lock within a host only
            raise OSError("it is of another host")
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(mark)
        raise
    return mark


def _host() -> bytes:
    return socket.gethostname().encode()


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
        return is_of_ray and any(
            Path(file.path).is_relative_to(folder) for file in process.open_files()
        )
    except (psutil.Error, OSError):
        return False


def _shared_memory(process: psutil.Process) -> list[Path]:
    """Named shared memory that a process has open: who is killed cannot take it away."""
    try:
        mapped = {Path(each.path) for each in process.memory_maps()}
    except (psutil.Error, OSError):
        return []
    return [file for file in mapped if file.parent == _SHARED_MEMORY]
