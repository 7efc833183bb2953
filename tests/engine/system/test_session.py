"""A session is private, goes with its block, and is cleared up by the next one where its process
was killed.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path

import psutil
import pytest

import engine.system.session
from engine.system.session import (
    MAX_ROOT_BYTES,
    VARIABLE,
    environment,
    remove_abandoned,
    session,
    session_root,
)
from tests.support.paths import ROOT
from tests.support.waiting import comes_true, is_alive

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
# Opens a session, starts a process in it that outlives it, says where and who, and waits.
HOLDER = """
import os, subprocess, sys, time
from engine.system.session import VARIABLE, environment, session
with session() as folder:
    with environment({VARIABLE: str(folder)}):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
            start_new_session=True,
        )
    print(folder, child.pid, flush=True)
    time.sleep(600)
"""
# Is killed while it has a folder for files.
KILLED = """
import os, signal
from engine.system.session import scratch
with scratch():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        monkeypatch.setattr(engine.system.session, "session_root", lambda: Path(folder))
        yield Path(folder)


def start_holder() -> tuple[subprocess.Popen[str], Path, psutil.Process]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(engine.system.session.session_root())},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout
    folder, pid = holder.stdout.readline().split()
    return holder, Path(folder), psutil.Process(int(pid))


def end(holder: subprocess.Popen[str], how: signal.Signals) -> None:
    holder.send_signal(how)
    holder.wait(300)
    assert holder.stdout
    holder.stdout.close()


def test_only_its_user_can_look_into_it_and_it_goes_with_its_block(temporary_root: Path) -> None:
    with session() as folder:
        assert folder.parent == temporary_root
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        (folder / "ray").mkdir()
        (folder / "ray" / "socket").touch()
    assert list(temporary_root.iterdir()) == []


def test_what_still_runs_in_it_ends_with_it() -> None:
    with session() as folder:
        inside = subprocess.Popen(SLEEPER, env=os.environ | {VARIABLE: str(folder)})
        outside = subprocess.Popen(SLEEPER)
        stopped = subprocess.Popen(SLEEPER, env=os.environ | {VARIABLE: str(folder)})
        stopped.send_signal(signal.SIGSTOP)
    assert is_alive(psutil.Process(outside.pid))
    assert not any(psutil.pid_exists(one.pid) for one in (inside, stopped))
    outside.kill()
    for one in (inside, stopped, outside):
        one.wait(300)


def test_the_session_of_a_killed_process_is_removed_by_the_next_with_its_processes(
    temporary_root: Path,
) -> None:
    holder, folder, child = start_holder()
    end(holder, signal.SIGKILL)
    assert folder.exists()
    with session() as other:
        assert list(temporary_root.iterdir()) == [other]
    assert comes_true(lambda: not is_alive(child))


def test_the_session_of_a_living_process_is_left_alone() -> None:
    holder, folder, child = start_holder()
    remove_abandoned()
    assert folder.exists()
    assert is_alive(child)
    end(holder, signal.SIGKILL)
    remove_abandoned()
    assert not folder.exists()


def test_shared_memory_of_a_killed_process_goes_too(temporary_root: Path) -> None:
    code = """
import os, sys, time
from multiprocessing import resource_tracker, shared_memory
memory = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(memory._name, "shared_memory")
print(memory.name, flush=True)
time.sleep(600)
"""
    with session() as folder:
        variables = os.environ | {VARIABLE: str(folder)}
        owner = subprocess.Popen(
            [sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE, text=True
        )
        assert owner.stdout
        name = owner.stdout.readline().strip()
        assert Path("/dev/shm", name).exists()
    owner.wait(300)
    owner.stdout.close()
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(name)


def test_a_folder_that_is_too_long_for_a_socket_is_not_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/" + "x" * MAX_ROOT_BYTES)
    assert session_root() == Path("/tmp")


def test_what_is_no_session_of_ours_is_left_alone(temporary_root: Path) -> None:
    (temporary_root / "xsample-file").touch()
    (temporary_root / "elsewhere").mkdir()
    (temporary_root / "xsample-abcdefgh").symlink_to(temporary_root / "elsewhere")
    for name in (
        "xsample-12345678",
        "xsample-main",
    ):  # such as an unpacked release, or a run directory
        (temporary_root / name).mkdir(mode=0o700)
    before = set(temporary_root.iterdir())
    remove_abandoned()
    assert set(temporary_root.iterdir()) == before


def test_variables_are_as_before_after_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSAMPLE_A", "1")
    monkeypatch.delenv("XSAMPLE_B", raising=False)
    with environment({"XSAMPLE_A": None, "XSAMPLE_B": "2"}):
        assert ("XSAMPLE_A" in os.environ, os.environ["XSAMPLE_B"]) == (False, "2")
    assert (os.environ["XSAMPLE_A"], "XSAMPLE_B" in os.environ) == ("1", False)


def test_a_folder_for_files_lies_in_tmpdir_however_long_that_is_and_is_swept_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=ROOT, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    assert killed.returncode == -signal.SIGKILL
    [abandoned] = tmp_path.iterdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    with engine.system.session.scratch() as folder:
        assert list(tmp_path.iterdir()) == [folder] != [abandoned]
    assert not folder.exists()
