"""The benchmarks' own parts: the check against recorded ratios, the played-back engines, the count
of the slots.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import throughput
from benchmarks.check import RECORDED, main
from benchmarks.memory import Watch
from benchmarks.occupancy import SlotSteps, stages
from benchmarks.playback import Lease
from benchmarks.startup import stages as reached
from engine.store.verify import verify_run

Write = Callable[[str, Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def writes(name: str, value: Any) -> Path:
        file = tmp_path / name
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        return file

    return writes


def result(**ratios: float) -> dict[str, Any]:
    medians = {
        name: {"median": ratio, "min": ratio, "max": ratio} for name, ratio in ratios.items()
    }
    return {"benchmark": "paired", "machine": "here", "ratios": medians}


def records(**ratios: float) -> dict[str, Any]:
    return {
        "paired": {name: {"recorded": ratio, "machine": "there"} for name, ratio in ratios.items()}
    }


def check(*files: Path) -> int:
    *results, recorded = map(str, files)
    return main([*results, "--recorded", recorded])


def test_a_ratio_that_fell_by_more_than_15_percent_is_named(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    now, before = (
        write("now", result(slow=8.4, fast=9.0)),
        write("before", records(slow=10.0, fast=10.0)),
    )
    assert check(now, before) == 1
    assert capsys.readouterr().err == "more than 15% below the recorded: paired slow\n"


def test_a_ratio_that_fell_by_less_or_rose_is_no_fault(write: Write) -> None:
    assert check(write("now", result(a=8.6, b=30.0)), write("before", records(a=10.0, b=10.0))) == 0


def test_a_ratio_that_was_never_recorded_is_said_and_no_fault(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(write("now", result(new=0.1)), write("before", {})) == 0
    assert "not recorded" in capsys.readouterr().out


def test_a_ratio_of_other_settings_is_not_compared_and_one_that_is_left_out_is_said(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    at_8, at_9 = ({"a": {"recorded": 10.0, "settings": {"budget": budget}}} for budget in (8, 9))
    now = write("now", result(a=1.0) | {"settings": {"budget": 8, "rounds": 2}})
    assert check(now, write("before", {"paired": at_9})) == 0
    assert check(now, write("before", {"paired": at_8})) == 1
    assert check(write("now", result()), write("before", records(gone=3.0))) == 0
    assert "left out" in capsys.readouterr().out


def test_what_was_recorded_is_what_is_compared_afterwards(write: Write) -> None:
    now, before = write("now", result(a=10.0)), write("before", records(a=99.0, other=2.0))
    assert main([str(now), "--recorded", str(before), "--record"]) == 0
    kept = json.loads(before.read_text())["paired"]
    assert kept == {
        "a": {"recorded": 10.0, "machine": "here", "settings": {}},
        "other": {"recorded": 2.0, "machine": "there"},
    }
    assert check(now, before) == 0


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        "[]",
        "{}",
        '{"ratios": 3}',
        '{"ratios": {"a": 3}}',
        '{"ratios": {"a": {"median": NaN}}}',
    ],
)
def test_a_file_that_is_no_result_is_one_line(
    write: Write, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(write("now", bad), write("before", {})) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "bad", ["{", '{"paired": 3}', '{"paired": {"a": 3}}', '{"paired": {"a": {"recorded": 0}}}']
)
def test_bad_records_are_one_line(
    write: Write, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(write("now", result(a=1.0)), write("before", bad)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path / "none", RECORDED) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_recorded_ratios_can_be_read(write: Write) -> None:
    assert check(write("now", result(unheard_of=1.0)), RECORDED) == 0


def test_a_played_back_run_is_a_whole_run_of_what_was_played(tmp_path: Path) -> None:
    lease = Lease(throughput.RESPONSES, median_length=12)
    one = throughput.contender("0,2", lease, tmp_path)
    store = throughput.make(
        throughput.plan("0,2", 2 * throughput.SAMPLES, tmp_path / "run"), one.player
    )
    assert verify_run(store).complete
    first, both = one.tokens, store.tokens().to_table()
    assert both.num_rows == 2 * first.num_rows
    for name in ("token", "js", "entropy_rl", "intervened"):
        assert (
            both[name]
            .combine_chunks()
            .slice(0, first.num_rows)
            .equals(first[name].combine_chunks())
        ), name


def test_every_slot_step_is_used_in_a_tail_or_idle() -> None:
    lease = {
        "base": [(True, [2, 2, 1]), (False, [1, 1])],
        "rl": [(True, [2, 2, 1]), (False, [2, 2, 2, 1])],
    }
    found = {name: SlotSteps() for name in ("paired", "solo")}
    for name, rows in stages(lease):
        found[name].add(rows, 2)
    assert (found["paired"].used, found["paired"].tail, found["paired"].idle) == (10, 2, 0)
    assert (found["solo"].used, found["solo"].tail, found["solo"].idle) == (9, 3, 4)
    assert found["solo"].total == 2 * 2 * 4


def test_a_stage_is_reached_with_the_first_line_that_says_so() -> None:
    said = [
        "run directory: x",
        "starting Ray",
        "loading a and b",
        "pair 1: on y",
        "pair 1: ready, 3 KV blocks",
        "still loading",
        "0/9 sequences, 5 tokens/s",
        "9/9 sequences, 6 tokens/s",
        "grading",
        "table",
    ]
    at = dict(reached((float(second), line) for second, line in enumerate(said)))
    assert list(at.values()) == [0, 1, 2, 4, 6, 8, 9]


def test_the_memory_of_what_is_held_is_seen() -> None:
    with Watch() as watch:
        held = np.ones(1 << 24)
        until = len(watch.samples) + 2
        while len(watch.samples) < until:
            held += 1
    assert watch.peak > held.nbytes
    assert max(watch.peaks(4)) == watch.peak
