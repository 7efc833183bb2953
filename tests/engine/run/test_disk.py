"""Disks that fail while a run is written: full, broken, read-only, cut. On small real file systems
where we may mount.

In every case: an error that names the file, earlier parts that stay readable, and a later start on
a healthy disk that makes exactly what is missing.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engine.core import Grade
from engine.errors import RunDirectoryError, StoreError
from engine.store.run_reader import read_run
from engine.store.run_store import RunStore
from engine.store.verify import verify_run
from tests.support.commits import EXPECTED, KEYS, commit

MANIFEST: dict[str, Any] = {"identity": {"seed": 0}, "expected": EXPECTED}
BLOCK = 4096


class Disk:
    """A file system of its own at `path`, which can be filled, broken and mended."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.path, self.image, self.kind = folder / "disk", folder / "image", kind
        self.path.mkdir()
        if kind == "ext4":
            self.image.write_bytes(bytes(8 << 20))
            _system(
                "mkfs.ext4",
                "-q",
                "-b",
                str(BLOCK),
                "-m",
                "0",
                "-O",
                "^has_journal",
                str(self.image),
            )
        self._mount()

    @property
    def run(self) -> Path:
        """A run directory on it."""
        return self.path / "run"

    def _mount(self) -> None:
        if self.kind == "ext4":
            _system("mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.path))
        else:
            _system("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(self.path))

    def fill(self, blocks_left: int = 0) -> None:
        """Write until nothing more fits, then give so many blocks back."""
        with (self.path / "filler").open("ab", buffering=0) as filler, suppress(OSError):
            while True:
                filler.write(bytes(BLOCK))
        size = (self.path / "filler").stat().st_size
        os.truncate(self.path / "filler", max(0, size - blocks_left * BLOCK))

    def clear(self) -> None:
        """Give the room back."""
        (self.path / "filler").unlink(missing_ok=True)

    def turn_read_only(self) -> None:
        """What the kernel does when the disk reports an error, whoever is writing."""
        mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
        device = next(line.split()[0] for line in mounts if f" {self.path} " in line)
        trigger = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
        if not trigger.exists():
            pytest.skip("this kernel reports no errors of a file system on demand")
        trigger.write_text("test")

    def mend(self) -> None:
        """Unmount, check, mount again."""
        self.unmount()
        subprocess.run(
            ["e2fsck", "-fy", str(self.image)], capture_output=True
        )  # ends with 1 when it mended something
        self._mount()

    def unmount(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], capture_output=True)


def _system(*command: str) -> None:
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    if result.returncode:
        pytest.skip(f"mounting needs root: {' '.join(result.stderr.split())}")


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """A disk of the kind that the test names; skipped where none can be mounted."""
    made = Disk(tmp_path, request.param)
    yield made
    made.unmount()


on_each_disk = pytest.mark.parametrize("disk", ["tmpfs", "ext4"], indirect=True)
on_ext4 = pytest.mark.parametrize("disk", ["ext4"], indirect=True)


def start(run: Path, num_keys: int = 3) -> None:
    """A run with its first trajectories, and a grade."""
    with RunStore.open(run, MANIFEST) as store:
        commit(store, KEYS[:num_keys])
        store.write_grades([Grade(KEYS[0], "5", None, "boxed", "correct", True)])


def assert_holds(run: Path, num_keys: int) -> None:
    """The first trajectories are there, whole and once; nothing else is."""
    found = verify_run(RunStore.read(run))
    assert found.missing == tuple(KEYS[num_keys:])
    assert not (found.double or found.unexpected or found.miscounted or found.unreadable)
    assert RunStore.read(run).done() == set(KEYS[:num_keys])


def resume(run: Path) -> None:
    """The next start: makes what is missing. Afterwards the run is complete and no debris is
    left.
    """
    with RunStore.open(run, MANIFEST) as store:
        missing = [key for key in KEYS if key not in store.done()]
        commit(store, missing)
    assert verify_run(RunStore.read(run)).complete
    assert [file for file in run.rglob(".*") if file.name != ".lock"] == []


# Full


@on_each_disk
def test_a_disk_that_fills_up_at_any_block_of_a_commit_names_the_file_and_keeps_what_was_there(
    disk: Disk,
) -> None:
    start(disk.run)
    named = set()
    with RunStore.open(disk.run, MANIFEST) as store:
        for blocks in range(32):
            disk.fill(blocks)
            try:
                commit(store, KEYS[3:])
            except StoreError as error:
                assert "No space left on device" in str(error)
                named.add(
                    next(
                        folder
                        for folder in ("tokens", "responses")
                        if f"/{folder}/part-" in str(error)
                    )
                )
                assert_holds(disk.run, 3)
                disk.clear()
            else:
                break
    disk.clear()
    assert named == {"tokens", "responses"}
    resume(disk.run)


@on_each_disk
def test_a_run_that_a_full_disk_ended_goes_on_when_there_is_room_again(disk: Disk) -> None:
    start(disk.run)
    disk.fill()
    with (
        RunStore.open(disk.run, MANIFEST) as store,
        pytest.raises(StoreError, match=r"part-000001\.parquet"),
    ):
        commit(store, KEYS[3:])
    assert_holds(disk.run, 3)
    disk.clear()
    resume(disk.run)


@on_each_disk
def test_a_full_disk_cannot_take_a_new_run_and_says_which_file(disk: Disk) -> None:
    disk.run.mkdir()
    disk.fill()
    with pytest.raises(
        RunDirectoryError, match=r"run\.json cannot be written: No space left on device"
    ):
        RunStore.open(disk.run, MANIFEST)
    disk.clear()
    resume(disk.run)


@on_each_disk
def test_grades_and_summary_stay_as_they_were_when_there_is_no_room_for_new_ones(
    disk: Disk,
) -> None:
    start(disk.run)
    store = RunStore.read(disk.run)
    store.write_summary({"accuracy": 1})
    before = store.grades()
    disk.fill()
    with pytest.raises(StoreError, match=r"grades\.parquet cannot be written: No space left"):
        store.write_grades([Grade(key, "5" * 100, None, "boxed", "wrong", False) for key in KEYS])
    with pytest.raises(StoreError, match=r"summary\.json cannot be written: No space left"):
        store.write_summary({"accuracy": [0] * 9999})
    assert store.grades().equals(before)
    assert store.summary() == {"accuracy": 1}


def test_a_full_device_is_the_same_error_without_a_disk_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path)
    with RunStore.open(tmp_path, MANIFEST) as store:
        monkeypatch.setattr(
            Path, "open", lambda path, mode: io.BufferedWriter(io.FileIO("/dev/full", "wb"))
        )
        with pytest.raises(
            StoreError, match=r"tokens/part-000001\.parquet cannot be written: No space left"
        ):
            commit(store, KEYS[3:])
        monkeypatch.undo()
    assert_holds(tmp_path, 3)
    resume(tmp_path)


# Read-only


@on_ext4
def test_a_disk_that_turns_read_only_in_the_middle_is_named_and_read_and_resumed_once_mended(
    disk: Disk,
) -> None:
    start(disk.run)
    with RunStore.open(disk.run, MANIFEST) as store:
        disk.turn_read_only()
        with pytest.raises(
            StoreError,
            match=r"tokens/part-000001\.parquet cannot be written: Read-only file system",
        ):
            commit(store, KEYS[3:])
    assert_holds(disk.run, 3)
    with pytest.raises(RunDirectoryError, match="Read-only file system"):
        RunStore.open(disk.run, MANIFEST)
    disk.mend()
    resume(disk.run)


# Errors of the device, put in at our own file layer


class Failing(io.FileIO):
    """A file on a disk that takes `room` more bytes, of all such files together, and then fails."""

    room = 0
    error = errno.EIO

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        if not Failing.room:
            raise OSError(Failing.error, os.strerror(Failing.error))
        written = super().write(view[: Failing.room])
        Failing.room -= written
        return written


@pytest.fixture
def failing_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Make every write fail after so many bytes, with this errno."""

    def fail(num_bytes: int, error: int) -> None:
        Failing.room, Failing.error = num_bytes, error
        monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedWriter(Failing(path, mode)))

    return fail


@pytest.mark.parametrize("error", [errno.EIO, errno.EDQUOT], ids=["EIO", "EDQUOT"])
@pytest.mark.parametrize("num_bytes", [0, 1, 1000, 5000, 9000])
def test_a_write_that_fails_in_the_middle_names_the_file_and_leaves_no_half_part(
    tmp_path: Path,
    failing_after: Callable[[int, int], None],
    monkeypatch: pytest.MonkeyPatch,
    num_bytes: int,
    error: int,
) -> None:
    start(tmp_path)
    with RunStore.open(tmp_path, MANIFEST) as store:
        failing_after(num_bytes, error)
        with pytest.raises(
            StoreError, match=rf"part-000001\.parquet cannot be written: {os.strerror(error)}"
        ):
            commit(store, KEYS[3:])
        monkeypatch.undo()
    assert_holds(tmp_path, 3)
    resume(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_device_error_at_any_sync_or_rename_of_a_commit_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Whether the part that failed counts or not, the next start ends with every trajectory
    once.
    """
    for failing in range({"fsync": 4, "replace": 2}[call]):
        run = tmp_path / str(failing)
        start(run)
        with RunStore.open(run, MANIFEST) as store:
            _fail_once(monkeypatch, call, failing)
            with pytest.raises(
                StoreError, match=r"part-000001\.parquet cannot be written: Input/output error"
            ):
                commit(store, KEYS[3:5])
            monkeypatch.undo()
            assert {*KEYS[:3]} <= RunStore.read(run).done()
        resume(run)


def test_two_device_errors_in_a_row_never_mix_two_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in (
        2,
        3,
    ):  # the sync of the responses, and that of their name, after which they count
        for second in range(4):
            run = tmp_path / f"{first}-{second}"
            start(run)
            with RunStore.open(run, MANIFEST) as store:
                for failing, keys in ((first, KEYS[3:5]), (second, KEYS[5:])):
                    _fail_once(monkeypatch, "fsync", failing)
                    with pytest.raises(StoreError, match="Input/output error"):
                        commit(store, keys)
                    monkeypatch.undo()
            resume(run)


def _fail_once(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """Let the call of this number, counted from 0, fail; those before it work."""
    module: Any = os if call == "fsync" else Path
    works, left = getattr(module, call), [number]

    def fail(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return works(*arguments)

    monkeypatch.setattr(module, call, fail)


# Parts that are not what they were


def test_a_last_part_that_was_cut_is_named_and_made_again_once_it_is_removed(
    tmp_path: Path,
) -> None:
    start(tmp_path)
    with RunStore.open(tmp_path, MANIFEST) as store:
        commit(store, KEYS[3:])
    for folder in ("responses", "tokens"):
        part = tmp_path / folder / "part-000001.parquet"
        part.write_bytes(part.read_bytes()[:-9])
        found = verify_run(RunStore.read(tmp_path))
        assert (found.unreadable, found.missing, found.double) == ((part,), tuple(KEYS[3:]), ())
        assert RunStore.read(tmp_path).grades().num_rows == 1
        with pytest.raises(StoreError, match=str(part)):
            RunStore.open(tmp_path, MANIFEST)
        part.unlink()
        (tmp_path / "responses" / part.name).unlink(missing_ok=True)
        resume(tmp_path)


def test_a_part_of_another_run_is_named_and_never_counted_and_moving_it_out_is_enough(
    tmp_path: Path,
) -> None:
    start(tmp_path / "run")
    with RunStore.open(tmp_path / "other", MANIFEST | {"identity": {"seed": 1}}) as other:
        commit(other, KEYS[:3])
        commit(other, KEYS[3:])
    for folder in ("tokens", "responses"):
        shutil.copy(tmp_path / "other" / folder / "part-000001.parquet", tmp_path / "run" / folder)
    with pytest.raises(StoreError, match=r"tokens/part-000001\.parquet is a part of another run"):
        RunStore.open(tmp_path / "run", MANIFEST)
    with pytest.raises(StoreError, match="is a part of another run"):
        RunStore.read(tmp_path / "run")
    found = verify_run(read_run(tmp_path / "run", keep_foreign=True))
    assert {part.parent.name for part in found.foreign} == {"tokens", "responses"}
    assert (found.missing, found.double, found.complete) == (tuple(KEYS[3:]), (), False)
    for part in found.foreign:
        part.unlink()
    resume(tmp_path / "run")


def test_half_a_part_of_another_run_is_found_too(tmp_path: Path) -> None:
    start(tmp_path / "run")
    start_other = MANIFEST | {"identity": {"seed": 1}}
    with RunStore.open(tmp_path / "other", start_other) as other:
        commit(other, KEYS[:3])
    shutil.copy(tmp_path / "other" / "tokens" / "part-000000.parquet", tmp_path / "run" / "tokens")
    with pytest.raises(StoreError, match=r"tokens/part-000000\.parquet is a part of another run"):
        RunStore.open(tmp_path / "run", MANIFEST)
    assert not verify_run(read_run(tmp_path / "run", keep_foreign=True)).complete
