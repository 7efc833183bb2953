"""The KV cache on a GPU is what sequences can fill, if there is room, and one of them at least."""

from hypothesis import given
from hypothesis import strategies as st

from engine.errors import EngineError
from engine.lockstep.kv_cache import KvCacheNeeds, kv_cache_bytes

GIB = 2**30


def test_a_small_model_on_a_large_gpu_gets_what_its_sequences_can_fill_twice() -> None:
    tiny = KvCacheNeeds(sequence_bytes=1536 * 256, max_num_seqs=64, vocab_size=320)
    assert kv_cache_bytes(80 * GIB, 2 * 10**6, 2, tiny) == 2 * 64 * 1536 * 256


def test_a_large_model_leaves_room_for_a_step() -> None:
    needs = KvCacheNeeds(sequence_bytes=8 * GIB, max_num_seqs=256, vocab_size=152_064)
    size = kv_cache_bytes(80 * GIB, 15 * GIB, 1, needs)
    logits = 6 * 4 * 256 * 152_064
    assert size == int(0.9 * (80 * GIB - 15 * GIB - 2 * GIB - logits))


@given(
    free=st.integers(1, 200 * GIB),
    weights=st.integers(1, 80 * GIB),
    num_engines=st.sampled_from((1, 2)),
    needs=st.builds(
        KvCacheNeeds, st.integers(1, 20 * GIB), st.integers(1, 1024), st.integers(1, 300_000)
    ),
)
def test_all_that_engines_take_fits_and_holds_a_sequence(
    free: int, weights: int, num_engines: int, needs: KvCacheNeeds
) -> None:
    try:
        size = kv_cache_bytes(free, weights, num_engines, needs)
    except EngineError as error:
        assert "--max-num-seqs" in str(error)
        return
    assert needs.sequence_bytes <= size <= 2 * needs.max_num_seqs * needs.sequence_bytes
    assert weights + num_engines * size < free
