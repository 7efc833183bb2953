"""The tokens do not depend on how the engines are run: batch, memory, chunks, ranks, and the way
they meet. (Several pairs: tests/engine/run/test_nodes.py.)
"""

from __future__ import annotations

import os

import pytest

from engine.run.placement import pair_config
from engine.store.run_store import RunStore
from tests.support.engines import (
    assert_same,
    carry_out,
    connect,
    less_on_v2,
    of_plan,
    plan_of,
    undisturbed,
)
from tests.support.measuring import assert_same_numbers, measured_again
from tests.support.waiting import comes_true
from tests.support.watched_pair import WatchedPair

# 16 problems x 2 samples x both directions; the whole run, 64 sequences in flight, says what they
# must be.
PART = {"samples": less_on_v2(2, 1), "budget": 4}
# Engines whose prompts come in chunks and whose KV cache cannot hold all that is in flight.
TIGHT = {"kv_cache_gib": None} | less_on_v2(
    {"max_num_seqs": 16, "max_num_batched_tokens": 32, "num_kv_blocks": 24},
    {"max_num_seqs": 8, "max_num_batched_tokens": 20, "num_kv_blocks": 8, "max_model_len": 160},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


@pytest.mark.v2
def test_the_same_tokens_and_numbers_on_two_ranks_over_tcp_with_chunks_and_a_small_kv_cache(
    store: RunStore,
) -> None:
    plan = plan_of(
        **PART | TIGHT, tensor_parallel_size=2, rendezvous="tcp", engine_arg=("block_size=32",)
    )
    pair = WatchedPair(pair_config(plan, 0))
    connect()
    shared_memory = set(os.listdir("/dev/shm"))
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
    assert_same(rows, of_plan(store, plan))
    assert comes_true(lambda: set(os.listdir("/dev/shm")) <= shared_memory), (
        "the ranks left shared memory behind"
    )
