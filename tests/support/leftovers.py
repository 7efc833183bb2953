"""What a run leaves behind on its machine: processes, shared memory, temporary files, Ray sessions.

A run is known by a mark in the environment that all its processes inherit, and by a folder for
temporary files of its own. Shared memory bears no mark: what is new since the run began and in use
by no living process has lost its owner.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "XSAMPLE_TEST_MARK"
SHARED_MEMORY = Path("/dev/shm")
RAY_SESSIONS = Path("/tmp/ray")  # where Ray puts them when nobody says where


class Traces:
    """All by which a run can be recognised on this machine. `temporary`: an empty folder, with a
    short name.
    """

    def __init__(self, temporary: Path) -> None:
        self._temporary = temporary
        self._mark = uuid.uuid4().hex
        self._shared_before, self._sessions_before = _names(SHARED_MEMORY), _names(RAY_SESSIONS)
        self._sessions: set[int] = set()

    @property
    def environment(self) -> dict[str, str]:
        """This process's, with what makes the run's processes known."""
        return os.environ | {MARK: self._mark, "TMPDIR": str(self._temporary)}

    def began(self, driver: int) -> None:
        """A command of the run has been started, as the leader of a session of its own: its process
        id.
        """
        self._sessions.add(driver)

    def processes(self) -> list[psutil.Process]:
        """Those of the run that are alive, oldest first; one that was not yet waited for is not."""
        return sorted(self._living(), key=lambda process: (process.create_time(), process.pid))

    def _living(self) -> Iterator[psutil.Process]:
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                ours = (
                    process.environ().get(MARK) == self._mark
                    or os.getsid(process.pid) in self._sessions
                )
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def kill(self) -> None:
        """End whatever is left of it, so that it disturbs nobody else."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def left(self, folders: int = 0, within: float = 300.0) -> list[str]:
        """What is there of a run that has ended, a line each, after it had `within` seconds to go.

        folders: private folders that a killed driver may leave to the next start.
        """
        return settled(
            within,
            lambda: [*self._processes_left(), *self._memory_left(), *self._files_left(folders)],
        )

    def processes_left(self, within: float) -> list[str]:
        """Only the processes of `left`."""
        return settled(within, self._processes_left)

    def _processes_left(self) -> list[str]:
        return [
            f"process {process.pid} is left: {command_line(process)}"
            for process in self.processes()
        ]

    def _memory_left(self) -> list[str]:
        new = _names(SHARED_MEMORY) - self._shared_before
        return [
            f"shared memory is left: {SHARED_MEMORY / name}" for name in sorted(new - _in_use(new))
        ]

    def _files_left(self, folders: int) -> list[str]:
        names = sorted(
            name for name in _names(self._temporary) if not _is_of_torch(self._temporary / name)
        )
        private = [name for name in names if name.startswith("xsample-")][:folders]
        left = [f"{self._temporary / name} is left" for name in names if name not in private]
        new = _names(RAY_SESSIONS) - self._sessions_before
        ours = tuple(f"_{driver}" for driver in self._sessions)
        return left + [
            f"{RAY_SESSIONS / name} is left" for name in sorted(new) if name.endswith(ours)
        ]


def settled(within: float, look: Callable[[], list[str]]) -> list[str]:
    """What `look` still finds after `within` seconds, or nothing as soon as it finds nothing."""
    deadline = time.monotonic() + within
    while (found := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def command_line(process: psutil.Process) -> str:
    """As far as it says what the process is."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())[:120] or str(process.name())
    return "gone by now"


def _is_of_torch(folder: Path) -> bool:
    """Its import makes an empty folder for its compiler, the same for all programs of a user."""
    return folder.name.startswith("torchinductor_") and not any(folder.iterdir())


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _in_use(names: set[str]) -> set[str]:
    """Those files of shared memory that some living process has mapped or open."""
    used: set[str] = set()
    for process in Path("/proc").glob("[0-9]*") if names else ():
        with suppress(OSError):
            held = (process / "maps").read_text(errors="replace")
            held += "".join(f"{os.readlink(file)}\n" for file in (process / "fd").iterdir())
            used |= {name for name in names if f"{SHARED_MEMORY / name}\n" in held}
    return used
