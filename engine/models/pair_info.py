"""Two models as a pair: whether they fit together, and what the run needs to know of them.

One model by itself is checked in `checkpoint`. Nothing here starts an engine or loads a weight, and
transformers is imported only by the functions that need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.core import POLICIES, Policy
from engine.errors import ModelError, first_line
from engine.models.checkpoint import Checkpoint, open_checkpoint

TINY_PAIR = Path(__file__).parents[1] / "tiny_pair"
"""The folder of the embedded pair."""
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a number, by the names of dtypes that a run can have."""
_MAX_COUNT = 1 << 31  # of anything that config.json counts
# Keys of config.json that change no number. An engine has its own dtype, and its own stop tokens.
_NOT_COMPUTED = {
    "_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "bos_token_id",
    "eos_token_id", "pad_token_id",
}  # fmt: skip
_CONTEXT_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "model_max_length",
)


@dataclass(frozen=True, slots=True)
class PairInfo:
    """Two models that fit together."""

    base: str
    """What the base engine loads: an absolute folder, or a hub id."""
    rl: str
    """What the RL engine loads."""
    tokenizer: Any
    """The tokenizer of the RL model."""
    vocab_size: int
    """Ids below it exist in both models; logits beyond it are padding, to be masked."""
    stop_token_ids: tuple[int, ...]
    """The EOS ids of both models, sorted."""
    context_length: int
    """Tokens, of the model with the shorter context."""
    dtype: str
    """That of the RL model; both engines must run in one."""
    alike: bool
    """Whether the two differ in nothing but their weights, as far as config.json says, and are not
    quantised.
    """
    base_weight_bytes: int
    """Size of the weight files."""
    rl_weight_bytes: int
    base_fingerprint: str
    """Changes when config.json or the weights do."""
    rl_fingerprint: str
    base_kv_numbers: int
    """Numbers that a token takes in the KV cache: 2 * layers * KV heads * head size."""
    rl_kv_numbers: int

    def identity(self) -> dict[str, Any]:
        """What identifies the pair in run.json."""
        return {
            "base": self.base_fingerprint,
            "rl": self.rl_fingerprint,
            "stop_token_ids": list(self.stop_token_ids),
        }


def inspect_pair(
    base: str | None,
    rl: str | None,
    trust_remote_code: bool,
    overrides: Mapping[Policy, Mapping[str, Any]] | None = None,
) -> PairInfo:
    """Check two models, and that they are a pair.

    Args:
        base: A folder or a hub id; None is that of the embedded pair.
        rl: As `base`.
        trust_remote_code: Whether code that comes with a model may run.
        overrides: What replaces values of each model's config.json (vLLM's hf_overrides).

    Raises:
        ModelError: A model cannot be run, or the two are no pair.
    """
    models = [
        open_checkpoint("--base", base or str(TINY_PAIR / "base")),
        open_checkpoint("--rl", rl or str(TINY_PAIR / "rl")),
    ]
    sizes = [
        _load_size(model, trust_remote_code, (overrides or {}).get(policy, {}))
        for policy, model in zip(POLICIES, models, strict=True)
    ]
    tokenizers = [_load_tokenizer(model, trust_remote_code) for model in models]
    _refuse_different_vocabularies(models, tokenizers)
    vocab_size = min(size.vocab for size in sizes)
    return PairInfo(
        base=models[0].name,
        rl=models[1].name,
        tokenizer=tokenizers[1],
        vocab_size=vocab_size,
        stop_token_ids=_stop_token_ids(models, tokenizers, vocab_size),
        context_length=min(size.context for size in sizes),
        dtype=sizes[1].dtype,
        alike=_are_alike(models[0].config, models[1].config),
        base_weight_bytes=models[0].weight_bytes,
        rl_weight_bytes=models[1].weight_bytes,
        base_fingerprint=models[0].fingerprint,
        rl_fingerprint=models[1].fingerprint,
        base_kv_numbers=sizes[0].kv_numbers,
        rl_kv_numbers=sizes[1].kv_numbers,
    )


@dataclass(frozen=True, slots=True)
class _Size:
    """The sizes of one model, from config.json and the defaults for what it leaves out."""

    vocab: int
    context: int
    """In tokens."""
    dtype: str
    kv_numbers: int
    """See `PairInfo.rl_kv_numbers`."""


def _load_size(model: Checkpoint, trust_remote_code: bool, overrides: Mapping[str, Any]) -> _Size:
    from transformers import AutoConfig

    try:
        loaded = AutoConfig.from_pretrained(model.folder, trust_remote_code=trust_remote_code)
        loaded.update(dict(overrides))
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
    except Exception as error:  # the parsers of transformers raise errors of any type
        raise _unreadable(model, "config.json", error, trust_remote_code) from error
    return size


def _load_tokenizer(model: Checkpoint, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model.folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # as above
        raise _unreadable(model, "tokenizer", error, trust_remote_code) from error


def _unreadable(model: Checkpoint, part: str, error: Exception, trusted: bool) -> ModelError:
    """The error of a model of which transformers cannot read a part."""
    brings_code = "auto_map" in model.config or any(model.folder.glob("*.py"))
    if brings_code and not trusted:
        return ModelError(
            f"{model.label} runs only with code of its own: read it, then give --trust-remote-code"
        )
    return ModelError(
        f"{model.label} has a {part} that transformers cannot read: {first_line(error)}"
    )


def _refuse_different_vocabularies(models: Sequence[Checkpoint], tokenizers: Sequence[Any]) -> None:
    """Compare two vocabularies token by token, since each model continues with ids of the other.

    Only ids that a tokenizer knows count: the length of the logits may differ, as models pad them
    to a multiple of 64 or 128.

    Raises:
        ModelError: An id stands for different tokens.
    """
    base, rl = (
        {index: token for token, index in tokenizer.get_vocab().items()} for tokenizer in tokenizers
    )
    for index in sorted(base.keys() | rl.keys()):
        if base.get(index) != rl.get(index):
            base_token, rl_token = (
                repr(vocabulary[index]) if index in vocabulary else "nothing"
                for vocabulary in (base, rl)
            )
            raise ModelError(
                f"{models[0].label} and {models[1].label} have different vocabularies: token id"
                f" {index} is {base_token} in the base model and {rl_token} in the RL model; a pair"
                " shares one tokenizer, give models of one family"
            )


def _are_alike(base: Mapping[str, Any], rl: Mapping[str, Any]) -> bool:
    """Whether one model computes as the other would with its weights, none of them quantised."""
    return _computed(base) == _computed(rl) and "quantization_config" not in base


def _computed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config.json that decides what a model computes from its weights."""
    return {name: value for name, value in config.items() if name not in _NOT_COMPUTED}


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
    """The context that vLLM would take, without stretching it by RoPE scaling; by default 2048."""
    lengths = [int(value) for key in _CONTEXT_KEYS if (value := getattr(config, key, None))]
    return min(lengths, default=2048)


def _dtype(config: Any) -> str:
    name = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return name if name in DTYPE_BYTES else "bfloat16"


def _kv_numbers(config: Any) -> int:
    """Numbers that a token takes in the KV cache, if every layer attends to all tokens."""
    heads = getattr(config, "num_attention_heads", None) or 1
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * kv_heads * head_size)
