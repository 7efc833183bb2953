"""What is checked before anything heavy starts: that two models are a pair, that the prompts fit,
that memory may do.

One model by itself is `checkpoint`'s matter. Nothing here starts an engine or loads a weight;
transformers and torch are imported by the functions that need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ModelError
from engine.models.checkpoint import Checkpoint, open_checkpoint

TINY_PAIR = Path(__file__).parents[1] / "tiny_pair"
_MAX_COUNT = 1 << 31  # of anything that config.json counts
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
)


@dataclass(frozen=True, slots=True)
class PairInfo:
    """Two models that fit together.

    base, rl:           what an engine is given: an absolute folder, or a hub id
    tokenizer:          the RL model's
    vocab_size:         ids below it exist in both models; a longer logits row of either is padding,
                        to be masked
    stop_token_ids:     sorted union of both models' EOS ids
    context_length:     tokens, the shorter of both
    dtype:              the RL model's; both engines must run in one
    *_weight_bytes:     size of the weight files
    *_fingerprint:      changes when config.json or the weights do
    *_kv_numbers:       numbers that a token leaves in the KV cache (2 * layers * kv heads * head
                        size)
    """

    base: str
    rl: str
    tokenizer: Any
    vocab_size: int
    stop_token_ids: tuple[int, ...]
    context_length: int
    dtype: str
    base_weight_bytes: int
    rl_weight_bytes: int
    base_fingerprint: str
    rl_fingerprint: str
    base_kv_numbers: int
    rl_kv_numbers: int

    def identity(self) -> dict[str, Any]:
        """What identifies the pair in run.json."""
        return {
            "base": self.base_fingerprint,
            "rl": self.rl_fingerprint,
            "stop_token_ids": list(self.stop_token_ids),
        }


def inspect_pair(base: str | None, rl: str | None, trust_remote_code: bool) -> PairInfo:
    """Check both models and that they are a pair. None is the embedded one. Raises ModelError."""
    models = [
        open_checkpoint("--base", base or str(TINY_PAIR / "base")),
        open_checkpoint("--rl", rl or str(TINY_PAIR / "rl")),
    ]
    sizes = [_load_size(model, trust_remote_code) for model in models]
    tokenizers = [_load_tokenizer(model, trust_remote_code) for model in models]
    _refuse_other_vocabulary(models, tokenizers)
    vocab_size = min(size.vocab for size in sizes)
    return PairInfo(
        base=models[0].name,
        rl=models[1].name,
        tokenizer=tokenizers[1],
        vocab_size=vocab_size,
        stop_token_ids=_stop_token_ids(models, tokenizers, vocab_size),
        context_length=min(size.context for size in sizes),
        dtype=sizes[1].dtype,
        base_weight_bytes=models[0].weight_bytes,
        rl_weight_bytes=models[1].weight_bytes,
        base_fingerprint=models[0].fingerprint,
        rl_fingerprint=models[1].fingerprint,
        base_kv_numbers=sizes[0].kv_numbers,
        rl_kv_numbers=sizes[1].kv_numbers,
    )


@dataclass(frozen=True, slots=True)
class _Size:
    """What config.json says of one model, with the defaults that it leaves out; context in
    tokens.
    """

    vocab: int
    context: int
    dtype: str
    kv_numbers: int


def _load_size(model: Checkpoint, trust_remote_code: bool) -> _Size:
    from transformers import AutoConfig

    try:
        loaded = AutoConfig.from_pretrained(model.folder, trust_remote_code=trust_remote_code)
        config = loaded.get_text_config()
        size = _Size(
            int(config.vocab_size), _context_length(config), _dtype(config), _kv_numbers(config)
        )
        for name, number in (
            ("vocabulary", size.vocab),
            ("context", size.context),
            ("KV cache", size.kv_numbers),
        ):
            if not 0 < number < _MAX_COUNT:
                raise ValueError(f"its {name} would have {number} entries")
    except Exception as error:  # the boundary to transformers, whose parsers raise what they like
        raise _refusal(model, "config.json", error, trust_remote_code) from error
    return size


def _load_tokenizer(model: Checkpoint, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model.folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # as above
        raise _refusal(model, "tokenizer", error, trust_remote_code) from error


def _refusal(model: Checkpoint, what: str, error: Exception, trusted: bool) -> ModelError:
    brings_code = "auto_map" in model.config or any(model.folder.glob("*.py"))
    if brings_code and not trusted:
        return ModelError(
            f"{model.label} runs only with code of its own: read it, then give --trust-remote-code"
        )
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelError(f"{model.label} has a {what} that transformers cannot read: {first_line}")


def _refuse_other_vocabulary(models: Sequence[Checkpoint], tokenizers: Sequence[Any]) -> None:
    """Compare token by token: ids go from one model to the other, so each must mean the same in
    both.

    The length of the logits may differ (padding to a multiple of 64 or 128): only ids that a
    tokenizer knows count.
    """
    base, rl = (
        {index: token for token, index in tokenizer.get_vocab().items()} for tokenizer in tokenizers
    )
    for index in sorted(base.keys() | rl.keys()):
        if base.get(index) != rl.get(index):
            one, other = (repr(v[index]) if index in v else "nothing" for v in (base, rl))
            raise ModelError(
                f"{models[0].label} and {models[1].label} have different vocabularies: token id"
                f" {index} is {one} in the base model and {other} in the RL model; a pair shares"
                " one tokenizer, give models of one family"
            )


def _stop_token_ids(
    models: Sequence[Checkpoint], tokenizers: Sequence[Any], vocab_size: int
) -> tuple[int, ...]:
    ids = set().union(*(model.eos_ids() for model in models))
    ids |= {
        int(tokenizer.eos_token_id)
        for tokenizer in tokenizers
        if tokenizer.eos_token_id is not None
    }
    stops = tuple(sorted(i for i in ids if 0 <= i < vocab_size))
    if not stops:
        raise ModelError(
            f"{models[0].label} and {models[1].label} name no EOS token, so no response would end: "
            "set eos_token_id in their generation_config.json"
        )
    return stops


def _context_length(config: Any) -> int:
    """As vLLM takes it, without stretching by RoPE scaling; 2048 where the configuration says
    nothing.
    """
    lengths = [int(value) for key in _CONTEXT_KEYS if (value := getattr(config, key, None))]
    return min(lengths, default=2048)


def _dtype(config: Any) -> str:
    name = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return name if name in DTYPE_BYTES else "bfloat16"


def _kv_numbers(config: Any) -> int:
    """Numbers that one token leaves in the KV cache, as if every layer attended to everything."""
    heads = getattr(config, "num_attention_heads", None) or 1
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * kv_heads * head_size)
