"""Whatever goes wrong with an engine is noticed in time, never becomes a token of one model, and is made good again."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import ray

import engine.run
import engine.scheduler
from engine import vllm_plugin
from engine.errors import EngineError, IncompleteRunError, LockstepError
from engine.job import Job
from engine.join import token_rows
from engine.launch import PairConfig
from engine.pair import Completed, Pair
from engine.plan import Plan
from engine.scheduler import Done, Note, Scheduler
from engine.store import RunStore
from engine.switching import Rule
from engine.verify import verify_run
from engine.worker import PolicyWorker, Progress
from tests.engines import (
    assert_same,
    comes_true,
    complete,
    connect,
    is_alive,
    keys_of,
    of_keys,
    of_plan,
    plan_of,
    undisturbed,
)

# Ray's processes cannot import a test's module: what is defined here travels by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

STEP_TIMEOUT = 5.0
# Some responses have been handed over by then, and many have not.
FAULTY_STEP = 300
PART = {"samples": 4, "budget": "unlimited", "max_num_seqs": 16, "step_timeout": STEP_TIMEOUT}


def drop_a_row(step: Any, logits: Any, sequence: Any, emitted: Any, previous: Any) -> Any:
    step(logits[:-1], sequence[:-1], emitted[:-1], previous[:-1])
    return logits


def swap_two_rows(step: Any, logits: Any, sequence: Any, emitted: Any, previous: Any) -> Any:
    order = np.array([1, 0, *range(2, len(sequence))])
    return step(logits, sequence[order], emitted[order], previous[order])


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


class FaultyWorker(PolicyWorker):
    """A worker that can be given a fault."""

    def spoil(self, fault: Any, marker: Path) -> None:
        """Do `fault` once at a later step of the paired phase, and say when in `marker`."""
        sampler: Any = vllm_plugin._the_sampler()
        step, num_steps = sampler.step, 0

        def spoilt(*arguments: Any) -> Any:
            nonlocal num_steps
            num_steps += sampler._phase.paired
            if num_steps != FAULTY_STEP:
                return step(*arguments)
            num_steps += 1
            marker.touch()
            return fault(step, *arguments)

        sampler.step = spoilt


class FaultyPair(Pair):
    """Remembers how it failed; what was started after a failure is sound, and stays for whoever comes next."""

    def __init__(self, config: PairConfig, worker_class: type[PolicyWorker]) -> None:
        super().__init__(config, worker_class)
        self.failures: list[tuple[EngineError, float]] = []
        self.num_starts = 0
        self._is_up = False

    def start(self) -> str:
        if self._is_up:
            return "up"
        self.num_starts += 1
        line = super().start()
        self._is_up = True
        return line

    def kill(self) -> None:
        if not self._is_up:
            super().kill()

    def end(self) -> None:
        """Kill the engines also if they are sound."""
        self._is_up = False
        self.kill()

    def run(self, jobs: Sequence[Job], rule: Rule) -> Iterator[Completed | Progress]:
        try:
            yield from super().run(jobs, rule)
        except EngineError as error:
            self.failures.append((error, time.time()))
            self._is_up = False
            raise

    def processes(self) -> list[psutil.Process]:
        """Those of the engines that run now."""
        return [psutil.Process(place.pid) for place in self.twins.places.values()]


@pytest.fixture(scope="module")
def pair() -> Iterator[FaultyPair]:
    """One for all faults: each leaves it with new engines."""
    pair = FaultyPair(plan_of(**PART).pair_config(0), FaultyWorker)
    yield pair
    pair.end()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


def carry_out(pair: Pair, plan: Plan) -> tuple[list[pa.Table], list[pa.Table]]:
    """What the scheduler hands over: before the first failure, and after it."""
    keys = list(plan.work.trajectories())
    connect()
    scheduler = Scheduler([pair], [plan.work.job(key) for key in keys], plan.rule, plan.config.max_num_seqs)
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
        ("rl", drop_a_row, LockstepError, "rows, its twin at"),
        ("base", swap_two_rows, LockstepError, "not at the same place in row 0"),
        ("rl", change_a_token, LockstepError, "decided was token"),
        ("base", be_killed, EngineError, "died"),
        ("rl", be_stopped, LockstepError, "did not answer within 5 s"),
    ],
)
def test_a_fault_is_noticed_in_time_and_the_run_is_completed_as_if_it_had_not_been(
    store: RunStore, pair: FaultyPair, tmp_path: Path, policy: str, fault: Any, error: type[EngineError], message: str
) -> None:
    plan, marker = plan_of(**PART), tmp_path / "faulty"
    connect()
    pair.start()
    spoilt = pair.processes()
    pair.failures.clear()
    ray.get(pair.twins.workers[policy].spoil.remote(fault, marker))
    before, after = carry_out(pair, plan)

    [(failure, failed_at)] = pair.failures
    assert isinstance(failure, error)
    assert message in str(failure)
    assert failed_at - marker.stat().st_mtime < STEP_TIMEOUT + 3
    assert comes_true(5, lambda: not any(map(is_alive, spoilt))), spoilt
    assert all(map(is_alive, pair.processes()))

    expected = of_plan(store, plan)
    assert before, "nothing was handed over before the fault: it came too early to show anything"
    delivered = pa.concat_tables(before)
    assert_same(delivered, of_keys(expected, keys_of(delivered)))
    assert_same(pa.concat_tables(before + after), expected)


def test_a_pair_that_cannot_be_started_is_an_error_at_once_in_the_words_of_the_cause() -> None:
    plan = plan_of(**PART, num_kv_blocks=1)
    pair = FaultyPair(plan.pair_config(0), PolicyWorker)
    with pytest.raises(EngineError, match=r"ValueError: .*cache"):
        carry_out(pair, plan)
    assert pair.num_starts == 1


def poisoned(noise_key: int) -> type[PolicyWorker]:
    """A worker that loses the row of one sequence whenever it comes to it."""

    class PoisonedWorker(PolicyWorker):
        def load(self, kv_cache_bytes: int | None) -> int:
            blocks = super().load(kv_cache_bytes)
            sampler: Any = vllm_plugin._the_sampler()
            step = sampler.step

            def lose(logits: Any, sequence: Any, *rest: Any) -> Any:
                kept = sampler._phase.key[sequence] != noise_key
                if sampler.config.policy == "base" or kept.all():
                    return step(logits, sequence, *rest)
                step(logits[kept], sequence[kept], *(column[kept] for column in rest))
                return logits

            sampler.step = lose
            return blocks

    return PoisonedWorker


def test_a_run_whose_pair_fails_every_time_ends_after_its_retries_says_what_is_missing_and_keeps_the_rest(
    store: RunStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(**PART | {"limit": 6, "direction": "forward", "max_num_seqs": 4}, out=str(tmp_path / "run"))
    *_, last = plan.work.trajectories()
    starts: list[Pair] = []

    class PoisonedPair(Pair):
        def __init__(self, config: PairConfig) -> None:
            super().__init__(config, poisoned(plan.work.job(last).noise_key))

        def start(self) -> str:
            starts.append(self)
            return super().start()

    monkeypatch.setattr(engine.run, "Pair", PoisonedPair)
    monkeypatch.setattr(engine.scheduler, "MAX_RETRIES", 1)  # each costs a start
    with pytest.raises(IncompleteRunError) as caught:
        complete(plan)
    assert len(starts) == 2

    partial = RunStore.read(plan.out)
    found = verify_run(partial)
    assert found.missing[-1] == last
    assert 0 < len(found.missing) < plan.work.num_trajectories
    assert not (found.double or found.unexpected or found.miscounted or found.unreadable)
    committed = partial.tokens().to_table()
    assert_same(committed, of_keys(of_plan(store, plan), keys_of(committed)))

    message = str(caught.value)
    assert f"{len(found.missing)} of {plan.work.num_trajectories} trajectories are missing" in message
    first = found.missing[0]
    assert f"{first.problem} sample {first.sample} {first.direction} budget unlimited" in message
    assert f"--out {plan.out}" in message

    monkeypatch.undo()
    assert_same(complete(plan).tokens().to_table(), of_plan(store, plan))
