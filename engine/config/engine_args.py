"""Arguments of vLLM's engines that a user adds: how they are written, and which are refused.

A run accepts what changes how a model is loaded and computed. It refuses what it sets itself, and
what would let the two engines of a pair leave lock-step. Imports nothing heavy; whether vLLM knows
an argument is checked in `engine.lockstep.vllm_engine`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

MAY_DIFFER = frozenset(
    {
        "code_revision", "config_format", "download_dir", "hf_config_path", "hf_overrides",
        "ignore_patterns", "load_format", "model_loader_extra_config", "quantization",
        "quantization_config", "revision",
    }
)  # fmt: skip
"""Arguments that say how a model is found and loaded, so may differ between the two engines."""

_BY_OPTION = {
    "model": "--base and --rl",
    "dtype": "--dtype",
    "trust_remote_code": "--trust-remote-code",
    "tensor_parallel_size": "--tensor-parallel-size",
    "max_model_len": "--max-model-len",
    "max_num_seqs": "--max-num-seqs",
    "max_num_batched_tokens": "--max-num-batched-tokens",
    "num_gpu_blocks_override": "--num-kv-blocks",
    "kv_cache_memory_bytes": "--kv-cache-gib",
    "gpu_memory_utilization": "--kv-cache-gib",
    "enforce_eager": "--enforce-eager",
    "hf_token": "the environment variable HF_TOKEN, which is not written to run.json",
}
_FOR_LOCKSTEP = {
    "async_scheduling": "the next step depends on the tokens of this one",
    "enable_prefix_caching": "forks share the prefix of their stem",
    "generation_config": "the sampling defaults of a model would differ between the two",
    "override_generation_config": "xsample samples, not vLLM",
    "logits_processors": "xsample's sampler is the only one",
    "skip_tokenizer_init": "engines get token ids",
    "tokenizer": "engines get token ids",
    "tokenizer_mode": "engines get token ids",
    "worker_cls": "the sampler is reached through vLLM's own worker",
    "worker_extension_cls": "it is how the sampler is reached",
    "distributed_executor_backend": "ranks must stay in the place that Ray gave them",
    "pipeline_parallel_size": "the sampler must see all logits; give --tensor-parallel-size",
    "speculative_config": "a step must decide one token of each sequence",
    "scheduler_cls": "both engines must schedule alike",
    "scheduling_policy": "both engines must schedule alike",
    "kv_transfer_config": "both engines must find the same prefixes in their caches",
    "kv_sharing_fast_prefill": "responses are measured at every token of a prompt",
    "enable_lora": "a model is one set of weights; merge the adapter",
    "disable_log_stats": "xsample shows progress itself",
    "enable_batch_sharded_sampling": "every rank must see all rows",
    "enable_dbo": "a step must be one batch",
    "watermark": "xsample samples, not vLLM",
    "watermark_config": "xsample samples, not vLLM",
    "device_ids": "Ray gives each engine its GPUs",
    "nnodes": "an engine is on one machine",
    "seed": "vLLM never draws; give --seed",
}
_PREFIXES_FOR_LOCKSTEP = {
    "kv_offloading_": "a cache on the host would outlive a change of weights",
    "data_parallel_": "an engine is one replica; give --pairs",
    "spec_": "a step must decide one token of each sequence",
}
# A control takes its arguments from the run.json of another run, which may come from anywhere.
_NAMES_CODE = frozenset(
    {
        "io_processor_plugin", "log_config_file", "logging_config", "model_class_overrides",
        "reasoning_parser_plugin",
    }
)  # fmt: skip
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def parse_engine_args(value: object, may_differ: bool) -> tuple[str, ...]:
    """Parse arguments as options or a YAML file give them.

    Args:
        value: A text "KEY=VALUE", a list of such texts, or a mapping.
        may_differ: Whether they are of one engine alone.

    Returns:
        A text "KEY=VALUE" for each, the value in JSON.

    Raises:
        ValueError: A text has no "=", a key is given twice, or a run refuses the argument.
    """
    pairs = list(value.items()) if isinstance(value, Mapping) else list(map(_pair, _texts(value)))
    names = [str(name).strip().removeprefix("--").replace("-", "_") for name, _ in pairs]
    for name in names:
        _check_name(name, may_differ)
        if names.count(name) > 1:
            raise ValueError(f"{name} is given twice: give it once")
    return tuple(
        f"{name}={json.dumps(given, sort_keys=True)}"
        for name, (_, given) in zip(names, pairs, strict=True)
    )


def engine_args(texts: Iterable[str]) -> dict[str, Any]:
    """What `parse_engine_args` has made of some arguments, by name."""
    pairs = (text.split("=", 1) for text in texts)
    return {name: json.loads(value) for name, value in pairs}


def _texts(value: object) -> list[str]:
    given = value if isinstance(value, (list, tuple)) else [value]
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise ValueError(f"{value!r:.80} is no list of KEY=VALUE")
    return texts


def _pair(text: str) -> tuple[str, Any]:
    """The key and the value of "KEY=VALUE", the value as YAML reads it."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r:.80} has no value: give KEY=VALUE")
    try:
        read = yaml.safe_load(value)
        json.dumps(read)
    except (yaml.YAMLError, TypeError):
        raise ValueError(f"{text!r:.80} has a value that is neither JSON nor a word") from None
    return name, read


def _check_name(name: str, may_differ: bool) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r:.80} is no argument of vLLM: give KEY=VALUE")
    if option := _BY_OPTION.get(name):
        raise ValueError(f"{name} is set by xsample: give {option}")
    reasons = [why for prefix, why in _PREFIXES_FOR_LOCKSTEP.items() if name.startswith(prefix)]
    if reason := _FOR_LOCKSTEP.get(name) or next(iter(reasons), None):
        raise ValueError(f"{name} cannot be set, for the two engines run in lock-step: {reason}")
    if name in _NAMES_CODE:
        raise ValueError(f"{name} cannot be set: it names code that vLLM would run; leave it out")
    if may_differ and name not in MAY_DIFFER:
        raise ValueError(
            f"{name} must be the same for both engines: give it as engine_arg; these may differ:"
            f" {', '.join(sorted(MAY_DIFFER))}"
        )
