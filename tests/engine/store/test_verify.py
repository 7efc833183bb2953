"""What `verify` finds in real run directories that lack something, hold it twice, or are
damaged.
"""

from pathlib import Path
from typing import Any

import pytest

from engine.core import Trajectory
from engine.store.run_store import RunStore
from engine.store.verify import Verification, verify_run
from tests.support.commits import EXPECTED, KEYS, LENGTH, commit


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with RunStore.open(tmp_path / "run", {"identity": {}, "expected": EXPECTED}) as store:
        yield store


def verify(store: RunStore) -> Verification:
    return verify_run(RunStore.read(store.path))


def test_a_complete_run_is_complete(store: RunStore) -> None:
    commit(store, KEYS[:3])
    commit(store, KEYS[3:])
    found = verify(store)
    assert found.complete
    assert (found.num_expected, found.num_tokens) == (8, 8 * LENGTH)


def test_an_empty_run_misses_everything(store: RunStore) -> None:
    assert verify(store).missing == tuple(KEYS)


def test_what_was_not_committed_is_missing_unlimited_budgets_too(store: RunStore) -> None:
    commit(store, KEYS[:-1])
    assert verify(store).missing == (Trajectory("b", 1, "forward", None),)


def test_a_trajectory_in_two_parts_is_double(store: RunStore) -> None:
    commit(store, KEYS)
    commit(store, KEYS[:1])
    assert verify(store).double == (KEYS[0],)


def test_a_trajectory_twice_in_one_part_is_double(store: RunStore) -> None:
    commit(store, [*KEYS, KEYS[0]])
    assert verify(store).double == (KEYS[0],)


def test_a_trajectory_that_nobody_asked_for_is_unexpected(store: RunStore) -> None:
    other = Trajectory("c", 0, "forward", 1)
    commit(store, [*KEYS, other])
    assert verify(store).unexpected == (other,)


@pytest.mark.parametrize("positions", [(0, 1), (0, 1, 1), (0, 2, 3), (1, 2, 3), (0, 1, 2, 3), ()])
def test_token_rows_must_be_every_position_once(
    store: RunStore, positions: tuple[int, ...]
) -> None:
    commit(store, KEYS[1:])
    commit(store, KEYS[:1], positions)
    assert verify(store).miscounted == (KEYS[0],)


@pytest.mark.parametrize("folder", ["tokens", "responses"])
def test_a_damaged_part_is_named_and_its_trajectories_are_missing(
    store: RunStore, folder: str
) -> None:
    commit(store, KEYS[:2])
    commit(store, KEYS[2:])
    part = store.path / folder / "part-000000.parquet"
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    found = verify(store)
    assert found.unreadable == (part,)
    assert found.missing == tuple(KEYS[:2])


def test_a_lost_tokens_part_is_named(store: RunStore) -> None:
    commit(store, KEYS)
    part = store.path / "tokens" / "part-000000.parquet"
    part.unlink()
    assert verify(store).unreadable == (part,)
