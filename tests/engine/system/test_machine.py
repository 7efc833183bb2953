"""What a process may use of its machine, by the limits of its affinity and its control groups."""

import os
from pathlib import Path

import pytest

from engine.system import machine


def test_cores_are_never_more_than_the_affinity() -> None:
    assert 1 <= machine.usable_cores() <= len(os.sched_getaffinity(0))


@pytest.mark.parametrize("quota", ["50000 100000", "100000 100000", "199999 100000"])
def test_a_cpu_quota_of_less_than_two_cores_is_one_core(tmp_path: Path, quota: str) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert machine.usable_cores(tmp_path) == 1


def test_a_quota_without_a_limit_limits_nothing(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000")
    (tmp_path / "memory.max").write_text("max")
    assert machine.usable_cores(tmp_path) == len(os.sched_getaffinity(0))
    assert machine.available_memory(tmp_path) > 1 << 20


def test_memory_is_what_the_control_group_leaves_and_its_cache_counts_as_free(
    tmp_path: Path,
) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 700000\ninactive_file 50000\n")
    assert machine.available_memory(tmp_path) == 150_000


def test_free_memory_is_read_until_a_killed_engine_has_given_all_of_its_own_back() -> None:
    numbers, waited = iter((10, 30, 70, 70, 71)), list[float]()
    assert machine.steady(lambda: next(numbers), waited.append) == 70
    assert waited == [1.0, 1.0, 1.0]


def test_a_number_that_never_rests_is_not_waited_for_without_end() -> None:
    numbers = iter(range(1000))
    assert machine.steady(lambda: next(numbers), lambda _: None, seconds=4) == 4


def test_a_machine_without_gpus_has_no_free_gpu_memory() -> None:
    assert machine.free_gpu_memory() is None or machine.visible_gpus()
