"""Shards share a run: nothing is made twice, no file is written by two, and what one leaves is not
taken for debris.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import Trajectory
from engine.errors import ConfigError, RunDirectoryError
from engine.run.settings import load
from engine.shard import WHOLE, Shard, parse_shard
from engine.store.folder import FolderLock
from engine.store.run_store import RunStore
from engine.store.verify import verify_run
from tests.support.commits import EXPECTED, KEYS, commit

MANIFEST = {"identity": {"seed": 0}, "expected": EXPECTED}
TRAJECTORIES = st.lists(
    st.builds(
        Trajectory, st.sampled_from("abc"), st.integers(0, 9), st.just("forward"), st.integers(0, 3)
    ),
    unique=True,
)


@given(TRAJECTORIES, st.integers(1, 9))
def test_shards_divide_the_run_and_keep_what_shares_tokens_together(
    keys: list[Trajectory], total: int
) -> None:
    shares = [list(Shard(number, total).share(keys)) for number in range(1, total + 1)]
    assert sorted(key for share in shares for key in share) == sorted(keys)
    for share in shares:
        stems = {key[:2] for key in share}
        assert [key for key in keys if key[:2] in stems] == share
    sizes = [len({key[:2] for key in share}) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@given(st.sets(st.integers(0, 50)), st.integers(1, 9))
def test_the_parts_of_two_shards_have_different_numbers_beyond_all_that_are_there(
    taken: set[int], total: int
) -> None:
    first = [Shard(number, total).first_part(taken) for number in range(1, total + 1)]
    assert len({number % total for number in first}) == total
    assert min(first) == max(taken, default=-1) + 1
    assert WHOLE.first_part(taken) == max(taken, default=-1) + 1


@pytest.mark.parametrize(
    "text", ["0/2", "3/2", "1/0", "1", "a/b", "1/2/3", "-1/2", "1/99999999", ""]
)
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="K/N"):
        parse_shard(text)
    with pytest.raises(ConfigError, match="shard is"):
        load(None, {"shard": text, "out": "run"})


def test_a_shard_needs_the_folder_that_all_of_them_share() -> None:
    with pytest.raises(ConfigError, match="shard is 1/2, but there is no out"):
        load(None, {"shard": "1/2"})


def test_two_shards_commit_side_by_side_and_the_whole_run_is_there(tmp_path: Path) -> None:
    one, two = (RunStore.open(tmp_path, MANIFEST, Shard(number, 2)) for number in (1, 2))
    for store, number in ((one, 1), (two, 2), (one, 1)):
        share = list(Shard(number, 2).share(KEYS))
        commit(store, [key for key in share if key not in store.done()][:2])
    commit(two, [key for key in KEYS if key not in two.done()])
    one.close()
    two.close()
    assert verify_run(RunStore.read(tmp_path)).complete
    RunStore.open(tmp_path, MANIFEST).close()


def test_a_shard_that_comes_later_leaves_alone_what_another_has_not_finished(
    tmp_path: Path,
) -> None:
    with RunStore.open(tmp_path, MANIFEST, Shard(1, 2)):
        unfinished = [
            tmp_path / "tokens" / "part-000000.parquet",
            tmp_path / "tokens" / ".part-000002.parquet.1.tmp",
        ]
        for file in unfinished:
            file.touch()
        RunStore.open(tmp_path, MANIFEST, Shard(2, 2)).close()
        assert all(file.exists() for file in unfinished)
    RunStore.open(tmp_path, MANIFEST, Shard(1, 2)).close()
    assert not unfinished[0].exists()
    RunStore.open(tmp_path, MANIFEST).close()
    assert not unfinished[1].exists()


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (WHOLE, Shard(1, 2)),
        (Shard(1, 2), WHOLE),
        (Shard(1, 2), Shard(1, 2)),
        (Shard(1, 2), Shard(2, 3)),
    ],
)
def test_what_would_make_the_same_twice_is_refused(
    tmp_path: Path, held: Shard, wanted: Shard
) -> None:
    with (
        RunStore.open(tmp_path, MANIFEST, held),
        pytest.raises(RunDirectoryError, match=r"in use .(process|2 shards)"),
    ):
        RunStore.open(tmp_path, MANIFEST, wanted)
    RunStore.open(tmp_path, MANIFEST, wanted).close()


def _make(path: Path, number: int, total: int) -> None:
    shard = Shard(number, total)
    with RunStore.open(path, MANIFEST, shard) as store:
        for key in shard.share(KEYS):
            commit(store, [key])


def test_shards_that_start_at_once_in_processes_of_their_own_make_one_run(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=_make, args=(tmp_path, number, 4)) for number in range(1, 5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * 4
    assert verify_run(RunStore.read(tmp_path)).complete


def _hold(path: Path, number: int, together: Any, refused: Any) -> None:
    for _ in range(50):
        together.wait(300)
        try:
            lock = FolderLock(path, Shard(number, 4))
        except RunDirectoryError:
            refused.value += 1
            together.wait(300)
        else:
            together.wait(300)
            lock.close()


def test_shards_that_start_in_the_same_moment_do_not_refuse_each_other(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    together, refused = spawn.Barrier(4), spawn.Value("i", 0)
    processes = [
        spawn.Process(target=_hold, args=(tmp_path, number, together, refused))
        for number in range(1, 5)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert ([process.exitcode for process in processes], refused.value) == ([0] * 4, 0)


def _open(path: Path, number: int, together: Any, admitted: Any) -> None:
    for attempt in range(20):
        together.wait(300)
        try:
            store = RunStore.open(
                path / str(attempt), MANIFEST | {"identity": {"seed": number}}, Shard(number, 2)
            )
        except RunDirectoryError:
            together.wait(300)
        else:
            admitted[attempt] += 1
            together.wait(300)
            store.close()


def test_of_two_shards_with_different_settings_that_start_in_the_same_moment_one_is_refused(
    tmp_path: Path,
) -> None:
    spawn = multiprocessing.get_context("spawn")
    together, admitted = spawn.Barrier(2), spawn.Array("i", 20)
    processes = [
        spawn.Process(target=_open, args=(tmp_path, number, together, admitted))
        for number in (1, 2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert ([process.exitcode for process in processes], admitted[:]) == ([0, 0], [1] * 20)


@pytest.mark.parametrize("folder", ["tokens", "responses"])
def test_a_run_directory_with_links_out_of_it_is_refused_and_nothing_there_is_touched(
    tmp_path: Path, folder: str
) -> None:
    with RunStore.open(tmp_path / "other", MANIFEST) as store:
        commit(store, KEYS[:1])
    RunStore.open(tmp_path / "run", MANIFEST).close()
    (tmp_path / "run" / folder).rmdir()
    (tmp_path / "run" / folder).symlink_to(tmp_path / "other" / folder)
    with pytest.raises(RunDirectoryError, match=f"has a link for {folder}/"):
        RunStore.open(tmp_path / "run", MANIFEST)
    assert RunStore.read(tmp_path / "other").done() == set(KEYS[:1])
