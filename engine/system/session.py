"""Session: the private folder that a run has on this machine while it works.

It holds the session of Ray, the sockets of the engines and a token. It is locked as long as its
process lives. At its end it is removed, and the processes that still belong to it are killed; they
are known by an environment variable that they inherit. The folder and the processes that a killed
run left behind are removed when the next session opens.
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
"""The environment variable by which the processes of a session are known: it holds the folder."""
_NAME = re.compile(r"xsample-[a-z0-9_]{8}")
# The file that marks a folder as a session, whose lock is the lock of the session.
_MARK = ".session"
_MAX_SOCKET_BYTES = 107  # of the path of a Unix socket
# The longest path in the folder of a session is that of the socket of Ray's object store.
_LONGEST_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
MAX_ROOT_BYTES = _MAX_SOCKET_BYTES - len(_LONGEST_SOCKET) - len("/xsample-12345678")
"""Bytes of the path of `session_root`, at most."""
_SHARED_MEMORY = Path("/dev/shm")


def session_root() -> Path:
    """The folder of all sessions: TMPDIR, or /tmp if that path is too long for a socket in it."""
    try:
        folder = tempfile.gettempdir()
    except OSError:  # no temporary folder can be written to
        folder = "/tmp"
    return Path(folder if len(os.fsencode(folder)) <= MAX_ROOT_BYTES else "/tmp")


@contextmanager
def session() -> Iterator[Path]:
    """Open a session for the block, and remove it and its processes after the block.

    Yields:
        Its folder.

    Raises:
        ConfigError: No folder can be created.
    """
    remove_abandoned()
    try:
        folder, lock = _create(session_root())
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
    """Make a private folder for files in TMPDIR, and remove it after the block.

    Unlike a session it may have a path of any length, and no processes.

    Yields:
        The folder.
    """
    remove_abandoned()
    folder, lock = _create(Path(tempfile.gettempdir()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> None:
    """Kill the processes and remove the folders of sessions whose own process is dead."""
    with suppress(OSError):
        parents = {session_root(), Path(tempfile.gettempdir())}
        folders = [folder for parent in parents for folder in parent.iterdir()]
        for folder in filter(_is_session, folders):
            with suppress(OSError):  # it is locked, or gone, or its file system has no locks
                lock = _lock(folder)
                _remove(folder)
                os.close(lock)


@contextmanager
def environment(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables during the block; processes that it starts inherit them.

    Args:
        variables: Values by name; None removes a variable.
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
        except OSError:  # without locks no other process can sweep it either
            was_swept = False
        if not was_swept:
            return folder, mark
        os.close(mark)  # another run took the folder for abandoned before it was locked


def _is_session(folder: Path) -> bool:
    """Whether `_create` made this folder for this user."""
    if not _NAME.fullmatch(folder.name):
        return False
    status = folder.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and stat.S_IMODE(status.st_mode) == 0o700
        and status.st_uid == os.getuid()
    )


def _lock(folder: Path) -> int:
    """Lock a session and return the descriptor of the lock.

    Raises:
        OSError: Its process is alive, or is on another host, or the folder is no session.
    """
    mark = os.open(folder / _MARK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if os.read(mark, 300) != _host():  # some shared file systems lock within one host only
            raise OSError("it is a session of another host")
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(mark)
        raise
    return mark


def _host() -> bytes:
    return socket.gethostname().encode()


def _remove(folder: Path) -> None:
    """Kill the processes of a session, and remove its folder and their shared memory."""
    processes = [process for process in psutil.process_iter() if _belongs_to(process, folder)]
    shared = {file for process in processes for file in _shared_memory(process)}
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=5)
    for file in shared:
        with suppress(OSError):
            file.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _belongs_to(process: psutil.Process, folder: Path) -> bool:
    """Whether a process is of the session in `folder`, by its environment or its open files.

    Ray writes the titles of its processes over their environment; those have a log open there.
    """
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
    """Files of named shared memory that a process maps: a killed process cannot unlink them."""
    try:
        mapped = {Path(region.path) for region in process.memory_maps()}
    except (psutil.Error, OSError):
        return []
    return [file for file in mapped if file.parent == _SHARED_MEMORY]
