"""The run directory: atomic commits, resume, locks, disks that fail, and no table kept alive."""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core import Grade, Problem
from engine.errors import RunDirectoryError, StoreError
from engine.store.run_store import RunStore
from engine.store.schema import GRADES, RESPONSES, SCHEMA_VERSION, TOKENS
from tests.support.commits import MANIFEST, hidden_files, key, tables
from tests.support.paths import ROOT


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A real small file system: `mounted("size=1m")` mounts it, `mounted("remount,ro")`
    changes it.
    """
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> Path:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], capture_output=True
        ).returncode:
            pytest.skip("mounting needs root")
        return disk

    yield mount
    subprocess.run(["umount", "-l", str(disk)], capture_output=True)


# What the code that `in_other_process` runs may use.
PRELUDE = """
import os, resource, sys
from pathlib import Path
from engine.errors import StoreError
from engine.store.run_store import RunStore
from tests.support.commits import MANIFEST, hidden_files, key, tables
"""


def in_other_process(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `code` after PRELUDE in another Python."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


# Commits


def test_what_was_committed_is_read_back_with_types_and_units(tmp_path: Path) -> None:
    tokens, responses = tables([key(0), key(1, None)])
    with RunStore.open(tmp_path / "run", MANIFEST) as store:
        store.commit(tokens, responses)
    read = RunStore.read(tmp_path / "run")
    assert read.tokens().to_table().equals(tokens)
    assert read.responses().equals(responses)
    assert read.responses().schema.equals(RESPONSES, check_metadata=True)
    assert read.done() == {key(0), key(1, None)}


def test_a_part_is_a_zstd_parquet_file_that_carries_its_units_and_version(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, MANIFEST) as store:
        store.commit(*tables([key()]))
    part = pq.ParquetFile(tmp_path / "tokens" / "part-000000.parquet")
    assert part.metadata.row_group(0).column(0).compression == "ZSTD"
    assert part.schema_arrow.field("js").metadata[b"unit"] == b"nats"
    assert part.schema_arrow.metadata[b"xsample.schema_version"] == str(SCHEMA_VERSION).encode()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sets(st.integers(0, 40), min_size=1, max_size=3), max_size=4), st.integers(0, 3))
def test_any_sequence_of_commits_and_resumes_reads_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, commits: list[set[int]], reopen_every: int
) -> None:
    path = tmp_path_factory.mktemp("runs") / "run"
    store = RunStore.open(path, MANIFEST)
    for i, numbers in enumerate(commits):
        if reopen_every and i % reopen_every == 0:
            store.close()
            store = RunStore.open(path, MANIFEST)
        store.commit(*tables([key(n) for n in sorted(numbers)]))
    store.close()
    expected = [f"p{n}" for numbers in commits for n in sorted(numbers)]
    assert store.responses(["problem"]).column("problem").to_pylist() == expected
    assert store.tokens().count_rows() == 3 * len(expected)
    assert store.done() == {key(int(problem[1:])) for problem in expected}


def test_columns_may_come_in_any_order_and_in_wider_types(tmp_path: Path) -> None:
    tokens, responses = tables([key()])
    wide = tokens.set_column(5, "token", tokens["token"].cast(pa.int64())).select(
        TOKENS.names[::-1]
    )
    with RunStore.open(tmp_path, MANIFEST) as store:
        store.commit(wide, responses)
        assert store.tokens().to_table().equals(tokens)


@pytest.mark.parametrize("change", ["missing", "unknown", "null", "too large"])
def test_a_table_that_does_not_fit_its_schema_is_never_written(tmp_path: Path, change: str) -> None:
    tokens, responses = tables([key()])
    bad = {
        "missing": tokens.drop_columns(["js"]),
        "unknown": tokens.append_column("more", tokens["js"]),
        "null": tokens.set_column(5, "token", pa.nulls(3, pa.int32())),
        "too large": tokens.set_column(5, "token", pa.array([2**40] * 3)),
    }[change]
    with RunStore.open(tmp_path, MANIFEST) as store:
        with pytest.raises((AssertionError, ValueError)):
            store.commit(bad, responses)
        assert list((tmp_path / "tokens").iterdir()) == []


def test_some_columns_of_the_responses_can_be_read_alone(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, MANIFEST) as store:
        store.commit(*tables([key(3)]))
        assert store.responses(["text", "sample"]).to_pylist() == [{"text": "x", "sample": 3}]


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    with RunStore.open(tmp_path / "budget=4", MANIFEST) as store:
        store.commit(*tables([key(budget=8)]))
        assert store.responses().column("budget").to_pylist() == [8]
        assert store.tokens().to_table().column("budget").to_pylist() == [8] * 3


def test_the_vocabulary_is_kept_once_and_read_back(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, MANIFEST) as store:
        assert store.vocabulary() == {}
        store.write_vocabulary(lambda: ["a", " b", "\n"])
        store.write_vocabulary(lambda: pytest.fail("asked for a second time"))
    assert RunStore.read(tmp_path).vocabulary() == {0: "a", 1: " b", 2: "\n"}


def test_an_empty_run_reads_as_empty_tables(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, MANIFEST) as store:
        assert (store.done(), store.responses().num_rows, store.tokens().count_rows()) == (
            set(),
            0,
            0,
        )


def test_a_table_is_not_kept_once_it_is_committed(tmp_path: Path) -> None:
    """How much memory a run takes, benchmarks/throughput measures."""
    with RunStore.open(tmp_path, MANIFEST) as store:
        committed: list[weakref.ref[pa.Table]] = []
        for number in range(10):
            part = tables([key(number)])
            store.commit(*part)
            committed += map(weakref.ref, part)
        del part
        gc.collect()
        assert [table for table in committed if table() is not None] == []


# Resume


def test_a_resumed_run_adds_parts_after_those_that_are_there(tmp_path: Path) -> None:
    for n in range(2):
        with RunStore.open(tmp_path, MANIFEST) as store:
            store.commit(*tables([key(n)]))
    assert sorted(f.name for f in (tmp_path / "responses").iterdir()) == [
        "part-000000.parquet",
        "part-000001.parquet",
    ]
    assert RunStore.read(tmp_path).done() == {key(0), key(1)}


def test_a_run_killed_at_any_point_of_a_commit_resumes_with_whole_parts_only(
    tmp_path: Path,
) -> None:
    """A process is killed before its k-th sync, for every k there is; whatever it left, the next
    open repairs.
    """
    killed = """
import os, signal
store, left, sync = RunStore.open(Path(sys.argv[1]), MANIFEST), [int(sys.argv[2])], os.fsync
def fsync(descriptor):
    left[0] -= 1
    os.kill(os.getpid(), signal.SIGKILL) if left[0] < 0 else sync(descriptor)
os.fsync = fsync
store.commit(*tables([key(1)]))
"""
    for k in range(4):
        path = tmp_path / str(k)
        with RunStore.open(path, MANIFEST) as store:
            store.commit(*tables([key(0)]))
        assert in_other_process(killed, path, k).returncode == -9
        with RunStore.open(path, MANIFEST) as store:
            assert hidden_files(path) == []
            assert store.unreadable() == []
            assert store.done() == ({key(0)} if k < 3 else {key(0), key(1)})
            assert store.tokens().count_rows() == 3 * len(store.done())
            assert len(list((path / "tokens").iterdir())) == len(store.done())


def test_tokens_without_their_responses_are_not_read_while_the_run_goes_on(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, MANIFEST) as store:
        store.commit(*tables([key()]))
        shutil.copy(
            tmp_path / "tokens" / "part-000000.parquet", tmp_path / "tokens" / "part-000001.parquet"
        )
        (tmp_path / "tokens" / ".part-000002.parquet.1.tmp").write_bytes(b"half")
        assert RunStore.read(tmp_path).tokens().count_rows() == 3


def test_responses_whose_tokens_are_gone_are_named_with_the_way_out(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, MANIFEST) as store:
        store.commit(*tables([key()]))
    (tmp_path / "tokens" / "part-000000.parquet").unlink()
    with pytest.raises(
        StoreError, match=r"tokens/part-000000\.parquet is missing.*remove responses/part-000000"
    ):
        RunStore.open(tmp_path, MANIFEST)
    (tmp_path / "responses" / "part-000000.parquet").unlink()
    with RunStore.open(tmp_path, MANIFEST) as store:
        assert store.done() == set()


def test_the_manifest_of_the_first_start_is_kept(tmp_path: Path) -> None:
    RunStore.open(tmp_path, MANIFEST).close()
    with RunStore.open(tmp_path, {**MANIFEST, "versions": {"vllm": "0.33"}}) as store:
        assert store.manifest["versions"] == {"vllm": "0.32"}
    assert json.loads((tmp_path / "run.json").read_text()) == {
        "schema_version": SCHEMA_VERSION,
        **MANIFEST,
    }


def test_another_identity_is_refused_with_every_difference_and_the_way_out(tmp_path: Path) -> None:
    RunStore.open(tmp_path, MANIFEST).close()
    other = {"base": "B", "seed": 1, "budget": [8], "task": "aime24"}
    with pytest.raises(RunDirectoryError) as error:
        RunStore.open(tmp_path, {"identity": other})
    for part in (
        "seed is 1 here, 0 there",
        "budget is [8] here, [8, None] there",
        "task is 'aime24' here",
        "another --out",
    ):
        assert part in str(error.value)
    assert "base" not in str(error.value)


def test_a_tuple_in_the_identity_is_the_list_that_json_makes_of_it(tmp_path: Path) -> None:
    RunStore.open(tmp_path, MANIFEST).close()
    RunStore.open(tmp_path, {"identity": {**MANIFEST["identity"], "budget": (8, None)}}).close()


@pytest.mark.parametrize("how", ["open", "read"])
def test_another_schema_version_is_refused_with_both(tmp_path: Path, how: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps({**MANIFEST, "schema_version": 0}))
    with pytest.raises(
        RunDirectoryError, match=f"schema_version 0, this xsample writes {SCHEMA_VERSION}"
    ):
        RunStore.open(tmp_path, MANIFEST) if how == "open" else RunStore.read(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_run_json_that_is_not_one_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunDirectoryError, match=r"run\.json cannot be read"):
        RunStore.open(tmp_path, MANIFEST)


# Folders that cannot be used


def test_a_missing_parent_is_made(tmp_path: Path) -> None:
    RunStore.open(tmp_path / "a" / "b" / "run", MANIFEST).close()
    assert (tmp_path / "a" / "b" / "run" / "run.json").exists()


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirectoryError, match="is a file"):
        RunStore.open(tmp_path / "file", MANIFEST)
    with pytest.raises(RunDirectoryError, match="cannot be used: Not a directory"):
        RunStore.open(tmp_path / "file" / "run", MANIFEST)


def test_a_folder_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear to me")
    with pytest.raises(RunDirectoryError, match="not empty and holds no run"):
        RunStore.open(tmp_path, MANIFEST)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("path", ["/proc/run", "/dev/null/run", "/" + "x" * 300, "\x00"])
def test_a_folder_that_cannot_be_made_is_refused_with_the_systems_reason(path: str) -> None:
    with pytest.raises(RunDirectoryError, match="cannot be used"):
        RunStore.open(Path(path), MANIFEST)


def test_a_read_only_folder_is_refused_but_can_be_read(mounted: Callable[[str], Path]) -> None:
    disk = mounted("size=1m")
    with RunStore.open(disk, MANIFEST) as store:
        store.commit(*tables([key()]))
    mounted("remount,ro")
    with pytest.raises(RunDirectoryError, match="Read-only file system"):
        RunStore.open(disk, MANIFEST)
    assert RunStore.read(disk).done() == {key()}


@pytest.mark.parametrize(
    ("name", "says"),
    [("none", "does not exist"), ("empty", "holds no run.json"), ("f", "is a file")],
)
def test_reading_what_is_no_run_says_what_it_is(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "f").write_text("")
    with pytest.raises(RunDirectoryError, match=says):
        RunStore.read(tmp_path / name)


# The lock


def test_a_second_writer_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    with (
        RunStore.open(tmp_path, MANIFEST),
        pytest.raises(RunDirectoryError, match=f"in use .process {os.getpid()}"),
    ):
        RunStore.open(tmp_path, MANIFEST)
    RunStore.open(tmp_path, MANIFEST).close()


def test_a_writer_that_was_killed_locks_nobody_out(tmp_path: Path) -> None:
    code = "store = RunStore.open(Path(sys.argv[1]), MANIFEST); os.kill(os.getpid(), 9)"
    assert in_other_process(code, tmp_path).returncode == -9
    RunStore.open(tmp_path, MANIFEST).close()


def test_a_refused_open_leaves_no_lock(tmp_path: Path) -> None:
    RunStore.open(tmp_path, MANIFEST).close()
    with pytest.raises(RunDirectoryError):
        RunStore.open(tmp_path, {"identity": {}})
    RunStore.open(tmp_path, MANIFEST).close()


# Disks that fail


def test_a_full_disk_is_an_error_that_names_the_file_and_costs_no_earlier_part(
    mounted: Callable[[str], Path],
) -> None:
    disk = mounted("size=256k")
    tokens, responses = tables([key(n) for n in range(8)])
    with RunStore.open(disk, MANIFEST) as store:
        store.commit(tokens, responses)
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 8192))
        with pytest.raises(
            StoreError,
            match=r"tokens/part-000001\.parquet cannot be written: No space left on device",
        ):
            store.commit(tokens, responses)
        assert hidden_files(disk) == []
        assert store.responses().equals(responses)
        (disk / "filler").unlink()
        store.commit(tokens, responses)
        assert store.tokens().count_rows() == 2 * tokens.num_rows


def test_a_limit_on_file_sizes_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    code = """
store = RunStore.open(Path(sys.argv[1]), MANIFEST)
store.commit(*tables([key(0)]))
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    store.commit(*tables([key(n) for n in range(300)]))
except StoreError as error:
    print(error, hidden_files(Path(sys.argv[1])), store.done() == {key(0)})
"""
    run = in_other_process(code, tmp_path)
    assert "tokens/part-000001.parquet cannot be written: File too large" in run.stdout, run.stderr
    assert "[] True" in run.stdout


@pytest.mark.parametrize("damage", ["cut", "emptied", "text"])
def test_a_damaged_part_is_named_when_it_is_read(tmp_path: Path, damage: str) -> None:
    with RunStore.open(tmp_path, MANIFEST) as store:
        for n in range(2):
            store.commit(*tables([key(n)]))
    part = tmp_path / "responses" / "part-000001.parquet"
    part.write_bytes(
        {"cut": part.read_bytes()[:-100], "emptied": b"", "text": b"PAR1 not really PAR1"}[damage]
    )
    store = RunStore.read(tmp_path)
    assert store.unreadable() == [part]
    with pytest.raises(StoreError, match=r"part-000001\.parquet cannot be read"):
        store.done()
    with pytest.raises(
        StoreError, match=r"part-000001\.parquet cannot be read.*; restore it, or remove tokens/"
    ):
        RunStore.open(tmp_path, MANIFEST)


def test_bytes_that_rotted_inside_a_part_are_found(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, MANIFEST) as store:
        store.commit(*tables([key(n) for n in range(50)]))
        part = tmp_path / "tokens" / "part-000000.parquet"
        content = bytearray(part.read_bytes())
        content[20:60] = bytes(40)
        part.write_bytes(content)
        assert store.unreadable() == [part]


# Grades and summary


def test_grades_are_read_back_and_replaced_whole(tmp_path: Path) -> None:
    RunStore.open(tmp_path, MANIFEST).close()
    store = RunStore.read(tmp_path)
    first = Grade(key(0), "42", None, "boxed", "correct", True, (2, 0, 1, 3))
    store.write_grades([first, Grade(key(1, None), None, None, None, "timed_out", None)])
    store.write_grades(iter([first]))
    assert store.grades().schema.equals(GRADES, check_metadata=True)
    assert store.grades().to_pylist() == [
        {
            **key(0)._asdict(),
            "answer": "42",
            "guess": None,
            "method": "boxed",
            "verdict": "correct",
            "correct": True,
            "options": [2, 0, 1, 3],
        }
    ]
    store.write_grades([])
    assert store.grades().num_rows == 0


def test_the_same_grades_are_the_same_bytes_in_whatever_order_they_were_decided(
    tmp_path: Path,
) -> None:
    RunStore.open(tmp_path, MANIFEST).close()
    store = RunStore.read(tmp_path)
    grades = [
        Grade(key(n, budget), "5", None, "boxed", "wrong", False)
        for n in range(3)
        for budget in (0, 8, None)
    ]
    written = []
    for order in (grades, grades[::-1]):
        store.write_grades(order)
        written.append((tmp_path / "grades.parquet").read_bytes())
    assert written[0] == written[1]
    assert store.grades()["budget"].to_pylist() == [0, 8, None] * 3


def test_problems_are_kept_as_they_were_asked_first(tmp_path: Path) -> None:
    problems = (
        Problem("t/1", "How many?", "5"),
        Problem("t/2", "Which?\n\nA) x\nB) y", "B", (1, 0)),
    )
    with RunStore.open(tmp_path, MANIFEST) as store:
        store.write_problems(problems, gated=False)
        store.write_problems(problems[:1], gated=False)
    assert RunStore.read(tmp_path).problems() == list(problems)


def test_the_text_of_a_gated_set_is_not_written(tmp_path: Path) -> None:
    problem = Problem("t/1", "A secret question?\n\nA) x\nB) y", "B", (1, 0))
    with RunStore.open(tmp_path, MANIFEST) as store:
        store.write_problems((problem,), gated=True)
    assert RunStore.read(tmp_path).problems() == [replace(problem, question="")]


def test_a_reader_sees_one_state_though_the_run_goes_on(tmp_path: Path) -> None:
    with RunStore.open(tmp_path, MANIFEST) as store:
        store.commit(*tables([key(0)]))
        reader = RunStore.read(tmp_path)
        store.commit(*tables([key(1)]))
        assert reader.responses(["tokens"]).num_rows == 1
        assert (
            store.responses(["tokens"]).num_rows
            == RunStore.read(tmp_path).responses(["tokens"]).num_rows
            == 2
        )


def test_a_summary_is_json_that_any_reader_takes(tmp_path: Path) -> None:
    RunStore.open(tmp_path, MANIFEST).close()
    store = RunStore.read(tmp_path)
    store.write_summary({"accuracy": [0.5, float("nan")], "name": "é"})
    assert store.summary() == {"accuracy": [0.5, None], "name": "é"}
    assert "NaN" not in (tmp_path / "summary.json").read_text()


def test_a_run_without_grades_says_how_to_get_them(tmp_path: Path) -> None:
    RunStore.open(tmp_path, MANIFEST).close()
    for ask in (RunStore.read(tmp_path).grades, RunStore.read(tmp_path).summary):
        with pytest.raises(RunDirectoryError, match="xsample grade"):
            ask()


def test_what_open_would_refuse_check_refuses_and_leaves_everything_as_it_is(
    tmp_path: Path,
) -> None:
    RunStore.check(tmp_path / "new", {"identity": {"seed": 0}})
    assert not (tmp_path / "new").exists()
    RunStore.open(tmp_path / "run", {"identity": {"seed": 0}}).close()
    RunStore.check(tmp_path / "run", {"identity": {"seed": 0}})
    with pytest.raises(RunDirectoryError, match="seed is 1 here, 0 there"):
        RunStore.check(tmp_path / "run", {"identity": {"seed": 1}})
    with pytest.raises(RunDirectoryError, match=r"made by `xsample run`, this is `xsample score`"):
        RunStore.check(tmp_path / "run", {"identity": {"responses": "abc"}})
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryError, match="is a file"):
        RunStore.check(tmp_path / "file", {"identity": {}})
