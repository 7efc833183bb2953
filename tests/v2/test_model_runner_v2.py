"""vLLM's model runner V2 carries the engines, and how it lays out a step does not matter.

V2 names the rows of a step in an order of its own, keeps requests in slots that it gives away in
another order on every engine, and on a GPU pads what it says of a step to the size of a CUDA graph.
These tests make it do all of that. `make test-v2` runs them, after the tests of `engine/lockstep`
that bear the mark `v2`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
import ray

from engine.core import POLICIES
from engine.run.placement import pair_config
from engine.store.run_store import RunStore
from tests.support.engines import (
    ENGINES,
    ON_V2,
    WHOLE,
    KeptPair,
    assert_same,
    carry_out,
    end_kept_pair,
    kept_pair,
    of_plan,
    plan_of,
    undisturbed,
)

# Ray's processes cannot import a test's module: what is defined here travels by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [
    pytest.mark.v2,
    pytest.mark.skipif(not ON_V2, reason="make test-v2 runs it, in an environment with Triton"),
]

NUM_PADDED = 3


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


@pytest.fixture(scope="module")
def pair(store: RunStore) -> Iterator[KeptPair]:
    """The pair that has made `store`, for the last time: these tests meddle with its engines."""
    pair = kept_pair(pair_config(plan_of(), 0))
    pair.start()
    yield pair
    end_kept_pair()


def runner_of(worker: Any) -> Any:
    return worker.engine.model_executor.driver_worker.worker.model_runner


def classes_of(worker: Any) -> tuple[list[str], list[str]]:
    """Where the model runner's classes come from, and the names of its processors."""
    runner = runner_of(worker)
    processors = runner.sampler.logits_processors
    return (
        [f"{each.__module__}.{each.__name__}" for each in type(runner).__mro__],
        [type(each).__name__ for each in processors],
    )


def name_rows_backwards(worker: Any) -> None:
    """In every second step, as far as V2's rule leaves the order open; both sides do the same."""
    from vllm.v1.worker.gpu import model_runner

    sort = model_runner.sort_batch_req_ids
    worker.num_reordered = num_steps = 0

    def sort_backwards(num_tokens: dict[str, int], *arguments: Any) -> list[str]:
        nonlocal num_steps
        num_steps += 1
        usual = list(sort(num_tokens, *arguments))
        if num_steps % 2:
            return usual
        order = list(sort(dict(reversed(num_tokens.items())), *arguments))
        worker.num_reordered += order != usual
        return order

    model_runner.sort_batch_req_ids = sort_backwards


def pad_lengths(worker: Any) -> None:
    """What V2 says of the rows' lengths goes on with zeros, as for a CUDA graph of more rows."""
    from dataclasses import replace

    import numpy as np

    from engine.lockstep.vllm_plugin import CrossSamplingV2

    apply = CrossSamplingV2.apply

    def padded(adapter: Any, logits: Any, context: Any) -> Any:
        lengths = np.pad(context.seq_lens_upper_bound_np, (0, NUM_PADDED))
        return apply(adapter, logits, replace(context, seq_lens_upper_bound_np=lengths))

    cast(Any, CrossSamplingV2).apply = padded


def note_slots(worker: Any) -> None:
    """Keep (slot, sequence) of every request that comes."""
    from engine.lockstep.vllm_plugin import CrossSamplingV2

    add_request = CrossSamplingV2.add_request
    worker.slots = []

    def noted(adapter: Any, slot: int, params: Any) -> bool:
        worker.slots.append((slot, (params.extra_args or {}).get("sequence")))
        return add_request(adapter, slot, params)

    cast(Any, CrossSamplingV2).add_request = noted


def give_slots_backwards(worker: Any) -> None:
    runner_of(worker).req_states.free_indices.reverse()


def test_the_engines_run_model_runner_v2_with_the_adapter_for_it(pair: KeptPair) -> None:
    for policy in POLICIES:
        runner, processors = pair.do(policy, classes_of)
        assert "vllm.v1.worker.gpu.model_runner.GPUModelRunner" in runner
        assert "CrossSamplingV2" in processors


def test_the_same_tokens_whatever_the_order_of_rows_and_slots_and_whatever_the_padding(
    store: RunStore, pair: KeptPair
) -> None:
    for policy in POLICIES:
        for disturb in (name_rows_backwards, pad_lengths, note_slots):
            pair.do(policy, disturb)
    pair.do("rl", give_slots_backwards)
    plan = plan_of(budget=(4,), samples=1)
    rows = carry_out(pair, plan)
    assert_same(rows, of_plan(store, plan))
    slots = {policy: pair.do(policy, lambda worker: worker.slots) for policy in POLICIES}
    for policy in POLICIES:
        assert pair.do(policy, lambda worker: worker.num_reordered) > 10
        assert {slot for slot, _ in slots[policy]} == set(range(ENGINES["max_num_seqs"]))
        assert len(slots[policy]) > ENGINES["max_num_seqs"]
    num_paired = 2 * WHOLE["limit"]  # the first phase: all of both directions
    base, rl = (slots[policy][:num_paired] for policy in POLICIES)
    assert [sequence for _, sequence in base] == [sequence for _, sequence in rl]
    assert [slot for slot, _ in base] != [slot for slot, _ in rl]
