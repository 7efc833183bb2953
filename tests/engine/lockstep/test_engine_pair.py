"""Two engines that have become different are refused before the first step, with the way out."""

import pytest

from engine.errors import EngineError
from engine.lockstep.engine_pair import check_alike
from engine.lockstep.worker import Loaded

ENGINE = Loaded(num_kv_blocks=100, kv_block_size=16, model_runner="V2")


def test_equal_engines_pass() -> None:
    check_alike(ENGINE, Loaded(100, 16, "V2"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Loaded(100, 16, "V1"), "base by model runner V2 and rl by V1.*VLLM_USE_V2_MODEL_RUNNER=0"),
        (Loaded(50, 32, "V2"), "KV blocks of 16 and 32 tokens.*one architecture"),
        (Loaded(90, 16, "V2"), "100 and 90 blocks.*give --num-kv-blocks 90"),
    ],
    ids=["model runner", "block size", "number of blocks"],
)
def test_different_engines_are_refused(other: Loaded, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        check_alike(ENGINE, other)
