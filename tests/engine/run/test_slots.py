"""An engine works on as many sequences as its KV cache has room for, and is of use."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.run_config import RunConfig
from engine.models.memory import MemoryEstimate
from engine.run.slots import num_slots

GIB = 2**30
LARGE = MemoryEstimate(
    weights=15 * GIB, kv_cache=None, kv_per_sequence=GIB // 2, available=80 * GIB, warning=None
)
VOCAB = 152_000


def test_what_the_user_says_holds() -> None:
    assert num_slots(RunConfig(max_num_seqs=7), LARGE, VOCAB, True) == 7


def test_what_is_free_on_a_gpu_decides() -> None:
    assert num_slots(RunConfig(), LARGE, VOCAB, True) == 216
    assert num_slots(RunConfig(share_gpu=True), LARGE, VOCAB, True) == 104
    assert num_slots(RunConfig(), replace(LARGE, kv_per_sequence=GIB // 100), VOCAB, True) == 256


@pytest.mark.parametrize("on_gpu", [False, True])
def test_the_size_of_the_cache_decides_where_it_is_given(on_gpu: bool) -> None:
    memory = replace(LARGE, kv_cache=8 * GIB, available=None)
    assert num_slots(RunConfig(), memory, VOCAB, on_gpu) == (32 if on_gpu else 16)
    assert num_slots(RunConfig(), replace(memory, kv_cache=GIB), VOCAB, True) == 4


def test_where_nothing_is_known_of_the_memory_it_is_the_most_that_is_of_use() -> None:
    unknown = replace(LARGE, available=None)
    assert num_slots(RunConfig(), unknown, VOCAB, True) == 256
    assert num_slots(RunConfig(num_kv_blocks=9), unknown, VOCAB, False) == 128


def test_a_step_holds_a_token_of_every_sequence() -> None:
    assert num_slots(RunConfig(max_num_batched_tokens=50), LARGE, VOCAB, True) <= 50


@given(st.integers(0, 2**40), st.integers(1, 2**32), st.integers(0, 2**38), st.booleans())
def test_there_is_always_one_and_more_memory_never_means_fewer(
    available: int, kv_per_sequence: int, weights: int, on_gpu: bool
) -> None:
    memory = MemoryEstimate(weights, None, kv_per_sequence, available, None)
    found = num_slots(RunConfig(), memory, 1000, on_gpu)
    assert 1 <= found <= 256
    more = replace(memory, kv_cache=4 * available + 1)
    less = replace(memory, kv_cache=available + 1)
    assert num_slots(RunConfig(), less, 1000, on_gpu) <= num_slots(RunConfig(), more, 1000, on_gpu)
