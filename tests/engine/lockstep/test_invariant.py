"""The tokens do not depend on how the engines are run: batch, memory, chunks, ranks, pairs, and the
way they meet.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import ray

from engine.core import POLICIES
from engine.lockstep.job import Job
from engine.lockstep.lease_runner import Completed
from engine.lockstep.worker import Decided
from engine.run.placement import pair_config
from engine.run.rows import token_rows
from engine.run.scheduler import Done, Note, Scheduler
from engine.sampling.rule import Rule
from engine.store.run_store import RunStore
from tests.support.engines import (
    OpenPair,
    assert_same,
    carry_out,
    connect,
    less_on_v2,
    of_plan,
    plan_of,
    started,
    undisturbed,
)
from tests.support.measuring import assert_same_numbers, measured_again
from tests.support.waiting import comes_true

# Ray's processes cannot import a test's module: what is defined here travels by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

# 16 problems x 2 samples x both directions; the whole run, 64 sequences in flight, says what they
# must be.
PART = {"samples": less_on_v2(2, 1), "budget": 4}


# Engines whose prompts come in chunks and whose KV cache cannot hold all that is in flight.
TIGHT = {"kv_cache_gib": None} | less_on_v2(
    {"max_num_seqs": 16, "max_num_batched_tokens": 32, "num_kv_blocks": 24},
    {"max_num_seqs": 8, "max_num_batched_tokens": 20, "num_kv_blocks": 8, "max_model_len": 160},
)


class Seen(NamedTuple):
    """What an engine's scheduler has done."""

    preemptions: int
    split_prompts: int
    most_in_flight: int


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


def watch(worker: Any) -> None:
    """Count what vLLM's scheduler does from now on."""
    from vllm.v1.core.sched.scheduler import Scheduler

    preemptions: dict[str, int] = {}
    worker.watched = Seen(0, 0, 0)
    schedule = Scheduler.schedule

    def watched(scheduler: Any, *arguments: Any) -> Any:
        step = schedule(scheduler, *arguments)
        preemptions.update(
            {id: request.num_preemptions for id, request in scheduler.requests.items()}
        )
        split = 0
        for new in step.scheduled_new_reqs:
            end = new.num_computed_tokens + step.num_scheduled_tokens[new.req_id]
            split += end < len(new.prompt_token_ids)
        seen = worker.watched
        in_flight = max(seen.most_in_flight, len(step.num_scheduled_tokens))
        worker.watched = Seen(sum(preemptions.values()), seen.split_prompts + split, in_flight)
        return step

    Scheduler.schedule = watched


class WatchedPair(OpenPair):
    """Counts what its two schedulers do."""

    seen = Seen(0, 0, 0)

    def ready(self) -> None:
        for policy in POLICIES:
            self.do(policy, watch)

    def run(self, jobs: Sequence[Job], rule: Rule) -> Iterator[Completed | Decided]:
        """A lease; `seen` is then what each of the schedulers has done at least."""
        yield from super().run(jobs, rule)
        seen = [self.do(policy, lambda worker: worker.watched) for policy in POLICIES]
        self.seen = Seen(*map(min, zip(*seen, strict=True)))


@pytest.mark.v2
def test_the_same_tokens_and_numbers_over_tcp_with_prompts_in_chunks_and_a_too_small_kv_cache(
    store: RunStore,
) -> None:
    plan = plan_of(**PART | TIGHT, rendezvous="tcp", engine_arg=("block_size=32",))
    pair = WatchedPair(pair_config(plan, 0))
    connect()
    try:
        where: list[str] = []
        ready = pair.start(where.append)
        assert ready == f"pair 1: ready, {TIGHT['num_kv_blocks']} KV blocks an engine"
        assert where == ["pair 1: on 127.0.0.1, tcp rendezvous"]
        rows = carry_out(pair, plan)
        seen = pair.seen
        assert_same_numbers(*measured_again(pair, rows, plan))
    finally:
        pair.kill()
    assert seen.preemptions >= less_on_v2(10, 5)
    assert seen.split_prompts >= 2
    assert pair.seen.split_prompts >= 2
    assert_same(rows, of_plan(store, plan))


@pytest.mark.v2
def test_the_same_tokens_and_numbers_when_each_engine_is_split_over_two_ranks(
    store: RunStore,
) -> None:
    plan = plan_of(**PART | less_on_v2({}, {"limit": 1}), tensor_parallel_size=2)
    connect()
    shared_memory = set(os.listdir("/dev/shm"))
    with started(OpenPair(pair_config(plan, 0))) as pair:
        rows = carry_out(pair, plan)
        assert_same_numbers(*measured_again(pair, rows, plan))
    assert_same(rows, of_plan(store, plan))
    assert comes_true(lambda: set(os.listdir("/dev/shm")) <= shared_memory), (
        "the ranks left shared memory behind"
    )


def test_the_same_tokens_when_two_pairs_share_the_work_and_have_4_sequences_in_flight_instead_of_64(
    store: RunStore,
) -> None:
    plan = plan_of(**PART, pairs=2, max_num_seqs=4)
    keys = list(plan.work.trajectories())
    pairs = [WatchedPair(pair_config(plan, number)) for number in range(2)]
    connect()
    scheduler = Scheduler(pairs, [plan.work.job(key) for key in keys], plan.rule, num_slots=4)
    done, ready = [], 0
    try:
        for event in scheduler.events():
            if isinstance(event, Done):
                done.append((event.jobs, event.completed))
            ready += isinstance(event, Note) and event.ready
    finally:
        scheduler.close()
    assert ready == 2
    assert [pair.seen.most_in_flight for pair in pairs] == [4, 4]
    assert_same(
        pa.concat_tables(
            [token_rows(completed.tokens, [keys[job] for job in jobs]) for jobs, completed in done]
        ),
        of_plan(store, plan),
    )
