"""The short form of tests/chaos.py: a run that loses its driver and is still what it would have
been.

The long form hits many runs at random; here the blows and the stage are chosen, and the moment
comes from a seed.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.store.run_store import RunStore
from tests.chaos import KINDS, Blow, ChaosRun, Command, stage_of, strike, table
from tests.support.engines import ENGINES, undisturbed
from tests.support.waiting import comes_true

SETTINGS: dict[str, object] = {
    "limit": 16, "samples": 4, "direction": "both", "budget": "0,1,4,unlimited", "max-num-seqs": 8,
    "no-report": "",
} | {name.replace("_", "-"): value for name, value in ENGINES.items()}  # fmt: skip
SEED = 20261123


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short name: sockets have their paths in it."""
    made = Path(tempfile.mkdtemp(prefix="c"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


def hit(command: Command, name: str, chance: random.Random) -> Blow:
    """Hit it while it samples, within a second of its engines having been loaded."""

    def is_sampling() -> bool:
        return command.stage() == "sampling"

    assert comes_true(lambda: command.code() is not None or is_sampling()), command.said()
    assert not comes_true(lambda: command.code() is not None, within=chance.random()), (
        command.said()
    )
    blow = strike(command, [kind for kind in KINDS if kind.name == name])
    assert blow and blow.stage == "sampling", (blow, command.said())
    print(f"{name} at {blow.moment:.1f} s: {blow.doing}")
    return blow


def test_a_run_that_loses_its_driver_ends_as_if_it_had_not(store: RunStore, folder: Path) -> None:
    run, chance = ChaosRun(SETTINGS, folder), random.Random(SEED)
    try:
        command = run.start()
        blows = [hit(command, "SIGKILL driver", chance)]
        assert not run.end(command, blows, at_once=True)
        assert run.end(run.start(), []), run.faults
        run.check_result(store)
        assert not run.faults
    finally:
        run.traces.kill()


def test_the_stage_is_read_from_what_a_run_says() -> None:
    told = {
        "run directory: runs/x": "starting",
        "starting Ray": "loading",
        "pair 1: ready, 1365 KV blocks an engine": None,
        "cross-sampling": "sampling",
        "293/960 sequences, 3,893 tokens/s": None,
        "pair 1 failed: an engine's process died": "loading",
        "grading": "grading",
        "x: sparsity": "report",
        "figures: position": "report",
    }
    assert {line: stage_of(line) for line in told} == told


def test_every_kind_of_blow_has_a_row_in_the_table_and_ends_as_documented() -> None:
    assert [line[:20].strip() for line in table([]).splitlines()] == [
        "",
        *(kind.name for kind in KINDS),
        "all",
    ]
    assert {code for kind in KINDS for code in kind.codes} <= {
        0,
        1,
        3,
        128 + signal.SIGKILL,
        130,
        143,
    }
