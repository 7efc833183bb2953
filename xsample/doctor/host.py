"""What this machine offers a run, as findings: cores, memory, folders, limits, loopback."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import socket
import tempfile
from dataclasses import replace
from pathlib import Path

from engine.system.machine import available_memory, usable_cores
from engine.system.session import MAX_ROOT_BYTES, session_root
from xsample.doctor.finding import Finding

_GIB = 1 << 30
_MIN_MEMORY = 4 * _GIB
_MIN_SHM, _GOOD_SHM = 32 << 20, _GIB
_MIN_TEMPORARY = _GIB
_MIN_OPEN_FILES = 4096  # below it Ray warns of connections that fail
_WITHOUT_LOCKS = (
    "start no second run, and no shards, with the same --out there; ask for a mount with flock"
)


def find_cores() -> Finding:
    """The cores that this process may keep busy: two engines on one core halve the speed."""
    cores = usable_cores()
    advice = "" if cores > 1 else "both engines share one core: runs, at less than half the speed"
    return Finding("cores", str(cores), True if cores > 1 else None, advice)


def find_memory() -> Finding:
    """The memory that this process can still use."""
    memory = available_memory()
    ok = memory >= _MIN_MEMORY
    advice = ""
    if not ok:
        advice = f"two engines of the embedded pair need about {_MIN_MEMORY // _GIB} GiB: free some"
    return Finding("free memory", f"{memory / _GIB:.1f} GiB", ok, advice)


def find_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Free space in /dev/shm, for the data that samplers exchange and for the objects of Ray.

    Containers have 64 MiB by default.
    """
    advice = "give the container more: docker run --shm-size=2g, and 16g for several GPUs"
    finding = _find_free_space(str(folder), folder, _GOOD_SHM, advice)
    if finding.ok is False and folder.is_dir() and shutil.disk_usage(folder).free >= _MIN_SHM:
        # It is enough for a pair; the objects of Ray then go to the temporary folder.
        return replace(finding, ok=None)
    return finding


def find_temporary_room() -> Finding:
    """Free space for the temporary files of runs.

    These are the session of Ray, and its objects if /dev/shm is too small.
    """
    advice = "free some, or set TMPDIR to a folder with room"
    return _find_free_space("temporary room", session_root(), _MIN_TEMPORARY, advice)


def _find_free_space(name: str, folder: Path, min_bytes: int, advice: str) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding(name, f"{folder}: {error.strerror}", False, f"mount a tmpfs on {folder}")
    ok = usage.free >= min_bytes
    value = f"{usage.free / _GIB:.2f} GiB free of {usage.total / _GIB:.2f}"
    return Finding(name, value, ok, "" if ok else advice)


def find_temporary_folder() -> Finding:
    """The folder of the temporary files of runs, TMPDIR.

    It must be writable, allow execution, and have a path that is short enough for sockets in it.
    """
    name, folder = "temporary folder", ""
    try:
        folder = tempfile.gettempdir()
        tempfile.TemporaryFile(dir=session_root()).close()
    except OSError as error:
        return Finding(
            name,
            f"{folder}: {error.strerror}",
            False,
            "set TMPDIR to a folder that you can write to",
        )
    tmpdir = os.environ.get("TMPDIR", folder)
    if tmpdir and Path(tmpdir).absolute() != Path(folder).absolute():
        advice = "TMPDIR cannot be written to: set another"
        return Finding(name, f"{folder}, not {tmpdir}", None, advice)
    if (num_bytes := len(os.fsencode(folder))) > MAX_ROOT_BYTES:
        advice = (
            f"sockets there have too long a path: runs use {session_root()}; set TMPDIR to at most"
            f" {MAX_ROOT_BYTES} bytes"
        )
        return Finding(name, f"TMPDIR has {num_bytes} bytes", None, advice)
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        advice = (
            "compiled kernels cannot be loaded from there: set TMPDIR, or run with --enforce-eager"
        )
        return Finding(name, f"{folder} is mounted noexec", None, advice)
    return Finding(name, folder, True)


def find_loopback() -> Finding:
    """Whether a socket on 127.0.0.1 can be reached, as the processes of a run need."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        return Finding(
            "loopback", error.strerror or str(error), False, "bring it up: ip link set lo up"
        )
    return Finding("loopback", "up", True)


def find_open_files() -> Finding:
    """How many files a process may have open, by the hard limit, which Ray takes."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if limit == resource.RLIM_INFINITY:
        return Finding("open files", "unlimited", True)
    if limit >= _MIN_OPEN_FILES:
        return Finding("open files", f"{limit:,}", True)
    advice = "enough for one pair; for more: ulimit -n 65536, docker run --ulimit nofile=65536"
    return Finding("open files", f"{limit:,}", None, advice)


def find_locks(folder: Path = Path()) -> Finding:
    """Whether file locks work in a folder: they keep a second run out of a run directory."""
    name = "file locks here"
    try:
        with (
            tempfile.NamedTemporaryFile(prefix=".xsample-", dir=folder) as file,
            open(file.name) as second,
        ):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Finding(name, "work", True)
            return Finding(name, "keep nobody out", None, _WITHOUT_LOCKS)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT):
            return Finding(
                name, f"{error.strerror}", None, "give --out a folder that you can write to"
            )
        return Finding(name, f"{error.strerror}", None, _WITHOUT_LOCKS)
