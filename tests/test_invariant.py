"""The tokens do not depend on how the engines are run: batch, memory, chunks, ranks, pairs, and the way they meet."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import ray

from engine.join import token_rows
from engine.launch import PairConfig
from engine.pair import Pair
from engine.plan import Plan
from engine.scheduler import Done, Note, Scheduler
from engine.store import RunStore
from engine.worker import PolicyWorker
from tests.engines import assert_same, carry_out, comes_true, connect, of_plan, plan_of, started, undisturbed

# Ray's processes cannot import a test's module: what is defined here travels by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

# 16 problems x 2 samples x both directions; the whole run, 64 sequences in flight, says what they must be.
PART = {"samples": 2, "budget": 4}


class Seen(NamedTuple):
    """What an engine's scheduler has done."""

    preemptions: int
    split_prompts: int
    most_in_flight: int


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


class WatchedWorker(PolicyWorker):
    """Counts what vLLM's scheduler does."""

    def load(self, kv_cache_bytes: int | None) -> int:
        blocks = super().load(kv_cache_bytes)
        self._preemptions: dict[str, int] = {}
        self._most_in_flight = self._split_prompts = 0
        scheduler = self._engine.engine_core.engine_core.scheduler
        schedule = scheduler.schedule

        def watched(*arguments: Any) -> Any:
            step = schedule(*arguments)
            self._preemptions |= {id: request.num_preemptions for id, request in scheduler.requests.items()}
            self._most_in_flight = max(self._most_in_flight, len(step.num_scheduled_tokens))
            for new in step.scheduled_new_reqs:
                end = new.num_computed_tokens + step.num_scheduled_tokens[new.req_id]
                self._split_prompts += end < len(new.prompt_token_ids)
            return step

        scheduler.schedule = watched
        return blocks

    def seen(self) -> Seen:
        return Seen(sum(self._preemptions.values()), self._split_prompts, self._most_in_flight)


def carry_out_watched(config: PairConfig, plan: Plan) -> tuple[pa.Table, Seen]:
    """What a pair makes of a plan, and what both of its schedulers have done at least."""
    with started(Pair(config, WatchedWorker)) as pair:
        return carry_out(pair, plan), seen_by_both(pair)


def seen_by_both(pair: Pair) -> Seen:
    """What each of its schedulers has done at least."""
    seen = ray.get([worker.seen.remote() for worker in pair.twins.workers.values()])
    return Seen(*map(min, zip(*seen, strict=True)))


def with_engine_args(config: PairConfig, **arguments: Any) -> PairConfig:
    workers = {
        policy: replace(worker, engine_args=worker.engine_args | arguments) for policy, worker in config.workers.items()
    }
    return replace(config, workers=workers)


def test_the_same_tokens_with_4_sequences_in_flight_as_with_64(store: RunStore) -> None:
    plan = plan_of(**PART, max_num_seqs=4)
    rows, seen = carry_out_watched(plan.pair_config(0), plan)
    assert seen.most_in_flight == 4
    assert_same(rows, of_plan(store, plan))


def test_the_same_tokens_when_the_kv_cache_is_too_small_and_sequences_are_preempted(store: RunStore) -> None:
    plan = plan_of(**PART, max_num_seqs=16, num_kv_blocks=24)
    rows, seen = carry_out_watched(with_engine_args(plan.pair_config(0), block_size=32), plan)
    assert seen.preemptions >= 10
    assert_same(rows, of_plan(store, plan))


def test_the_same_tokens_over_tcp_and_when_prompts_are_prefilled_in_chunks(store: RunStore) -> None:
    plan = plan_of(**PART, max_num_seqs=8, max_num_batched_tokens=32, rendezvous="tcp")
    connect()
    pair = Pair(plan.pair_config(0), WatchedWorker)
    try:
        assert "tcp rendezvous" in pair.start()
        rows = carry_out(pair, plan)
        assert seen_by_both(pair).split_prompts >= 2
    finally:
        pair.kill()
    assert_same(rows, of_plan(store, plan))


def test_the_same_tokens_when_each_engine_is_split_over_two_ranks(store: RunStore) -> None:
    plan = plan_of(**PART, tensor_parallel_size=2)
    connect()
    shared_memory = set(os.listdir("/dev/shm"))
    with started(Pair(plan.pair_config(0))) as pair:
        rows = carry_out(pair, plan)
    assert_same(rows, of_plan(store, plan))
    assert comes_true(5, lambda: set(os.listdir("/dev/shm")) <= shared_memory), "the ranks left shared memory behind"


def test_the_same_tokens_when_two_pairs_share_the_work(store: RunStore) -> None:
    plan = plan_of(**PART, pairs=2, max_num_seqs=16)
    keys = list(plan.work.trajectories())
    pairs = [Pair(plan.pair_config(number)) for number in range(2)]
    connect()
    scheduler = Scheduler(pairs, [plan.work.job(key) for key in keys], plan.rule, num_slots=8)
    done, ready = [], 0
    try:
        for event in scheduler.events():
            if isinstance(event, Done):
                done.append((event.jobs, event.completed))
            ready += isinstance(event, Note)
    finally:
        scheduler.close()
    assert ready == 2
    assert_same(
        pa.concat_tables([token_rows(completed.tokens, [keys[job] for job in jobs]) for jobs, completed in done]),
        of_plan(store, plan),
    )
