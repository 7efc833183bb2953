"""Whatever goes wrong with an engine is noticed in time, never becomes a token of one model, and is
made good again.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil
import pyarrow as pa
import pytest
import ray
import torch

import engine.lockstep.worker
import engine.run.scheduler
from engine.core import POLICIES
from engine.errors import EngineError, GivenUpError, LockstepError, LostEngineError
from engine.lockstep.lease_runner import LeaseRunner
from engine.lockstep.worker import Loaded, PolicyWorker
from engine.run.placement import pair_config
from engine.run.plan import Plan
from engine.run.rows import token_rows
from engine.run.scheduler import Done, Note, Scheduler
from engine.sampling.sampler import CrossSampler, Phase
from engine.store.run_store import RunStore
from engine.store.verify import verify_run
from tests.support.engines import (
    ENGINES,
    KeptPair,
    OpenWorker,
    assert_same,
    complete,
    connect,
    kept_pair,
    keys_of,
    of_keys,
    of_plan,
    plan_of,
    undisturbed,
)
from tests.support.waiting import comes_true, is_alive
from xsample.cli.finish import finish

# Ray's processes cannot import a test's module: what is defined here travels by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

# The first half of the responses has been handed over by then, and the second has not.
FAULTY_STEP = 150
PART = {"budget": "unlimited"}


def change_a_token(step: Any, logits: Any, *rows: Any) -> Any:
    logits = step(logits, *rows)
    logits[0] = -logits[0].abs()
    logits[0, 7] = 1.0
    return logits


def be_killed(step: Any, *arguments: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def be_stopped(step: Any, *arguments: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)
    return step(*arguments)


def run_out_of_memory(step: Any, *arguments: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def short_of_memory(marker: Path) -> Callable[[PolicyWorker, int | None], Loaded]:
    """`load` of a worker that has no memory for it the first time; it leaves `marker` behind."""

    def load(worker: PolicyWorker, kv_cache_bytes: int | None) -> Loaded:
        if not marker.exists():
            marker.touch()
            raise MemoryError("cannot allocate 20 GiB")
        return PolicyWorker.load(worker, kv_cache_bytes)

    return load


def hand_over_often(worker: PolicyWorker) -> None:
    """The same batches on both sides: they send the same messages."""
    engine.lockstep.worker.SEQUENCES_PER_MESSAGE = 64


def spoil(worker: PolicyWorker, fault: Any, marker: Path) -> None:
    """Do `fault` once at a later step of a paired phase, and leave `marker` behind."""
    begin, step = CrossSampler.begin, CrossSampler.step
    is_paired, num_steps = False, 0

    def note(sampler: CrossSampler, phase: Phase) -> None:
        nonlocal is_paired
        is_paired = phase.paired
        begin(sampler, phase)

    def spoilt(sampler: CrossSampler, *arguments: Any) -> Any:
        nonlocal num_steps
        num_steps += is_paired
        if num_steps != FAULTY_STEP:
            return step(sampler, *arguments)
        num_steps += 1
        marker.touch()
        return fault(partial(step, sampler), *arguments)

    cast(Any, CrossSampler).begin, cast(Any, CrossSampler).step = note, spoilt


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


def processes(pair: LeaseRunner) -> list[psutil.Process]:
    """Those of the engines that run now."""
    return [psutil.Process(place.pid) for place in pair.engines.places.values()]


def carry_out(pair: LeaseRunner, plan: Plan) -> tuple[list[pa.Table], list[pa.Table]]:
    """What the scheduler hands over: before the first failure, and after it."""
    keys = list(plan.work.trajectories())
    connect()
    scheduler = Scheduler([pair], [plan.work.job(key) for key in keys], plan.rule, plan.num_slots)
    before: list[pa.Table] = []
    after: list[pa.Table] = []
    here = before
    try:
        for event in scheduler.events():
            if isinstance(event, Note) and "failed" in event.text:
                here = after
            elif isinstance(event, Done):
                here.append(token_rows(event.completed.tokens, [keys[job] for job in event.jobs]))
    finally:
        scheduler.close()
    return before, after


@pytest.mark.parametrize(
    ("policy", "fault", "error", "message"),
    [
        ("rl", change_a_token, LockstepError, "decided was token"),
        ("base", be_killed, LostEngineError, "died"),
        ("base", run_out_of_memory, LostEngineError, "ran out of memory: CUDA out of memory"),
        ("rl", be_stopped, LockstepError, f"did not answer within {ENGINES['step_timeout']} s"),
    ],
)
def test_a_fault_is_noticed_and_the_run_is_completed_as_if_it_had_not_been(
    store: RunStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
    fault: Any,
    error: type[EngineError],
    message: str,
) -> None:
    """A row that is lost, the test below has."""
    plan, marker = plan_of(**PART), tmp_path / "faulty"
    pair = kept_pair(pair_config(plan, 0))
    pair.start()
    if fault is run_out_of_memory:  # and the engines that follow do so while they load
        monkeypatch.setattr(OpenWorker, "load", short_of_memory(tmp_path / "tried"))
    spoilt = processes(pair)
    for each in POLICIES:
        pair.do(each, hand_over_often)
    pair.do(policy, spoil, fault, marker)
    before, after = carry_out(pair, plan)

    [failure] = pair.failures
    assert isinstance(failure, error)
    assert message in str(failure)
    assert marker.exists() and (tmp_path / "tried").exists() == (fault is run_out_of_memory)
    assert comes_true(lambda: not any(map(is_alive, spoilt))), spoilt
    assert all(map(is_alive, processes(pair)))

    expected = of_plan(store, plan)
    assert before, "nothing was handed over before the fault: it came too early to show anything"
    delivered = pa.concat_tables(before)
    assert_same(delivered, of_keys(expected, keys_of(delivered)))
    assert_same(pa.concat_tables(before + after), expected)


def test_engines_stand_behind_nothing_else_that_their_user_runs() -> None:
    pair = kept_pair(pair_config(plan_of(**PART), 0))
    pair.start()
    assert [process.nice() for process in processes(pair)] == [os.nice(0)] * 2


def test_a_pair_that_cannot_be_started_is_an_error_at_once_in_the_words_of_the_cause() -> None:
    plan = plan_of(**PART, kv_cache_gib=None, num_kv_blocks=1)
    pair = KeptPair(pair_config(plan, 0))
    with pytest.raises(EngineError, match=r"ValueError: .*cache"):
        carry_out(pair, plan)
    assert pair.num_starts == 1


def poison(worker: PolicyWorker, noise_key: int) -> None:
    """Lose the row of one sequence whenever it has come to its tenth token."""
    begin, step = CrossSampler.begin, CrossSampler.step
    keys: Any = None

    def note(sampler: CrossSampler, phase: Phase) -> None:
        nonlocal keys
        keys = phase.key
        begin(sampler, phase)

    def lose(sampler: CrossSampler, logits: Any, *rows: Any) -> Any:
        sequence, emitted, _ = rows
        kept = (keys[sequence] != noise_key) | (emitted < 10)
        if kept.all():
            return step(sampler, logits, *rows)
        step(sampler, logits[kept], *(column[kept] for column in rows))
        return logits

    cast(Any, CrossSampler).begin, cast(Any, CrossSampler).step = note, lose


def test_what_fails_every_time_is_given_up_and_recorded_and_tried_again_by_the_next_session(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(**PART, out=str(tmp_path / "run"))
    *_, last = plan.work.trajectories()
    noise_key, poisoned = plan.work.job(last).noise_key, []
    pair = kept_pair(pair_config(plan, 0))

    def poison_it() -> None:
        poisoned.append(pair.do("rl", poison, noise_key))

    monkeypatch.setattr(pair, "ready", poison_it)
    monkeypatch.setattr(engine.run.scheduler, "MAX_FAILURES", 2)  # each costs a start
    made = complete(plan)
    assert len(poisoned) == 2

    found = verify_run(RunStore.read(plan.out))
    failures = made.failures()
    assert found.missing == tuple(failure.key for failure in failures)
    assert last in found.missing
    assert len(found.missing) <= plan.work.num_trajectories // 8
    assert len(found.failed) == len(failures)
    assert all(failure.attempts == 2 for failure in failures)
    assert all("rows, its twin at" in failure.error for failure in failures)
    assert not (found.double or found.unexpected or found.miscounted or found.unreadable)
    committed = made.tokens().to_table()
    assert_same(committed, of_keys(of_plan(store, plan), keys_of(committed)))
    with pytest.raises(GivenUpError, match=f"{len(failures)} of them given up after 2 failures"):
        finish(made, plan.grader)

    monkeypatch.undo()
    whole = complete(plan)
    assert whole.failures() == []
    assert_same(whole.tokens().to_table(), of_plan(store, plan))
