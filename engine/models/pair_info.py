"""What is checked before anything heavy starts: that two models are a pair, that the prompts fit,
that memory may do.

One model by itself is `checkpoint`'s matter. Nothing here starts an engine or loads a weight;
transformers and torch are imported by the functions that need them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config.run_config import RunConfig
from engine.core import ExternalResponses
from engine.errors import ConfigError, ModelError
from engine.models.checkpoint import Checkpoint, open_checkpoint
from engine.system.machine import available_memory, visible_gpus

TINY_PAIR = Path(__file__).parents[1] / "tiny_pair"
_GIB = 1 << 30
_MAX_COUNT = 1 << 31  # of anything that config.json counts
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
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


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """Bytes on one device (the host, or each GPU); `available` is None where that cannot be seen
    from here.

    weights:         of the engines that share the device
    kv_cache:        asked for by these engines; None when vLLM chooses
    kv_per_sequence: one engine's KV cache for one sequence of full length
    warning:         one line, or None
    """

    weights: int
    kv_cache: int | None
    kv_per_sequence: int
    available: int | None
    warning: str | None


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


def check_prompts(
    prompts: Mapping[str, Sequence[int]],
    max_tokens: int,
    max_model_len: int | None,
    context_length: int,
    vocab_size: int,
) -> int:
    """The max_model_len to use, after checking that each prompt (by problem id) and its response
    fit. In tokens.
    """
    _refuse_beyond_context(max_model_len, context_length)
    limit = max_model_len or context_length
    limited_by = (
        f"max_model_len {limit}" if max_model_len else f"the pair's context of {limit} tokens"
    )
    for problem, ids in prompts.items():
        if max(ids) >= vocab_size:
            raise ModelError(
                f"problem {problem!r}: its prompt holds token id {max(ids)}, the models end at"
                f" {vocab_size - 1}"
            )
    problem, longest = max(
        ((name, len(ids)) for name, ids in prompts.items()), key=lambda item: item[1]
    )
    if longest >= limit:
        raise ConfigError(
            f"problem {problem!r}: its prompt has {longest} tokens, {limited_by} leaves no room for"
            " a response: give a pair with a longer context, or leave this problem out"
        )
    if longest + max_tokens > limit:
        raise ConfigError(
            f"max_tokens {max_tokens} does not fit: the prompt of problem {problem!r} has {longest}"
            f" tokens and {limited_by} holds both; give --max-tokens {limit - longest} or less"
        )
    return max_model_len or longest + max_tokens


def _refuse_beyond_context(max_model_len: int | None, context_length: int) -> None:
    if max_model_len is not None and max_model_len > context_length:
        raise ConfigError(
            f"max_model_len {max_model_len} is more than the pair's context of {context_length}:"
            " give at most that"
        )


def check_given(
    given: ExternalResponses, max_model_len: int | None, context_length: int, vocab_size: int
) -> int:
    """The max_model_len to use, after checking that each response and its prompt fit and hold ids
    of the models.
    """
    _refuse_beyond_context(max_model_len, context_length)
    limit = max_model_len or context_length
    for one in given.responses:
        ids = one.prompt + one.response
        if max(ids) >= vocab_size:
            raise ModelError(
                f"{one.where}: it holds token id {max(ids)}, the models end at {vocab_size - 1}: "
                "give the pair whose tokenizer made it, or its text"
            )
        if len(ids) > limit:
            raise ConfigError(
                f"{one.where}: prompt and response have {len(one.prompt)} and {len(one.response)}"
                f" tokens, more than the context of {limit}: give a pair with a longer context, or"
                " leave this response out"
            )
    return max_model_len or max(len(one.prompt) + len(one.response) for one in given.responses)


def estimate_memory(pair: PairInfo, config: RunConfig, max_model_len: int) -> MemoryEstimate:
    """Estimate what one pair needs on a device. Raises ModelError when its weights alone cannot
    fit.
    """
    gpus = visible_gpus() if config.device != "cpu" else []
    on_gpu = config.device == "cuda" or bool(gpus)
    dtype = pair.dtype if config.dtype == "auto" else config.dtype
    widening = _DTYPE_BYTES[dtype] / _DTYPE_BYTES[pair.dtype]
    both = (pair.base_weight_bytes, pair.rl_weight_bytes)
    shared = not on_gpu or config.share_gpu
    weights = int(
        widening
        * (sum(both) if shared else max(both))
        / (config.tensor_parallel_size if on_gpu else 1)
    )
    kv_engine = None if config.num_kv_blocks else _kv_bytes(config, on_gpu)
    kv_cache = None if kv_engine is None else kv_engine * (2 if shared else 1)
    kv_numbers = max(pair.base_kv_numbers, pair.rl_kv_numbers)
    kv_sequence = (
        kv_numbers
        * _DTYPE_BYTES[dtype]
        * max_model_len
        // (config.tensor_parallel_size if on_gpu else 1)
    )
    available = min(gpu.memory for gpu in gpus) if gpus else None if on_gpu else available_memory()
    where = "each GPU" if on_gpu else "this machine"
    if available is not None and weights > available:
        raise ModelError(
            f"--base and --rl need {_gib(weights)} for their weights on {where}, which has"
            f" {_gib(available)}: give smaller"
            f" models{', more GPUs (--tensor-parallel-size)' if on_gpu else ' or run on GPUs'}"
        )
    warning = _memory_warning(weights, kv_engine, kv_cache, kv_sequence, available, where)
    return MemoryEstimate(weights, kv_cache, kv_sequence, available, warning)


def _memory_warning(
    weights: int,
    kv_engine: int | None,
    kv_cache: int | None,
    kv_sequence: int,
    available: int | None,
    where: str,
) -> str | None:
    if kv_engine is not None and kv_engine < kv_sequence:
        return (
            f"a KV cache of {_gib(kv_engine)} is less than the {_gib(kv_sequence)} of one sequence"
            f" of full length: give --kv-cache-gib {kv_sequence / _GIB * 1.05:.2g} or more, or a"
            " smaller --max-tokens"
        )
    if available is not None and weights + (kv_cache or 0) > available:
        return (
            f"weights ({_gib(weights)}) and KV cache ({_gib(kv_cache or 0)}) are more than the"
            f" {_gib(available)} of {where}: the engines may not start; give a smaller"
            " --kv-cache-gib"
        )
    return None


def _kv_bytes(config: RunConfig, on_gpu: bool) -> int | None:
    """KV cache that one engine asks for on one device."""
    gib = config.kv_cache_gib or (None if on_gpu else 1.0)
    return None if gib is None else int(gib * _GIB)


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"


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
    return name if name in _DTYPE_BYTES else "bfloat16"


def _kv_numbers(config: Any) -> int:
    """Numbers that one token leaves in the KV cache, as if every layer attended to everything."""
    heads = getattr(config, "num_attention_heads", None) or 1
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(2 * config.num_hidden_layers * kv_heads * head_size)
