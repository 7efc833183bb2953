"""A vLLM engine as lock-step needs it, and a check of the arguments that users may add to it."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from engine.errors import ConfigError, EngineError, first_line

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.engine.llm_engine import LLMEngine


def make_engine(
    engine_args: Mapping[str, Any], kv_cache_bytes: int | None, with_sampler: bool = True
) -> tuple[LLMEngine, VllmConfig]:
    """Build an engine, which takes minutes for a large model.

    Args:
        engine_args: Arguments of vLLM's `EngineArgs`.
        kv_cache_bytes: Size of the KV cache; None where `engine_args` give it in blocks.
        with_sampler: Whether xsample's sampler takes the place of vLLM's own.

    Returns:
        The engine, and its configuration.

    Raises:
        EngineError: vLLM refuses the arguments.
    """
    # Imported objects stay; searching them for garbage again and again takes a fifth of the time.
    gc.disable()
    from vllm.engine.arg_utils import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from engine.lockstep.vllm_plugin import SamplerCalls, processor_for

    gc.freeze()
    gc.enable()
    own = dict(engine_args)
    if kv_cache_bytes:
        # With the KV size given this only decides whether vLLM refuses a GPU that is partly in use,
        # here by the twin.
        own["gpu_memory_utilization"] = 0.01
    if with_sampler:
        own["worker_extension_cls"] = f"{SamplerCalls.__module__}.{SamplerCalls.__qualname__}"
    try:
        config = EngineArgs(
            **own,
            kv_cache_memory_bytes=kv_cache_bytes,
            skip_tokenizer_init=True,  # token ids in, token ids out
            # a model's own sampling defaults would differ between the two
            generation_config="vllm",
            async_scheduling=False,  # the next batch must depend on this one's tokens
            disable_log_stats=True,
        ).create_engine_config()
    except (ValueError, TypeError) as error:
        raise EngineError(f"vLLM refuses its settings: {_refusal(error)}") from None
    if with_sampler:
        config.model_config.logits_processors = [processor_for(config)]
    return LLMEngine.from_vllm_config(config, disable_log_stats=True), config


def check_names(names: Mapping[str, Any]) -> None:
    """Check that the installed vLLM knows the arguments that a user has added, by name.

    Raises:
        ConfigError: It does not.
    """
    if not names:
        return
    from dataclasses import fields
    from difflib import get_close_matches

    from vllm.engine.arg_utils import EngineArgs

    known = [field.name for field in fields(EngineArgs)]
    for name in names:
        if name not in known:
            similar = get_close_matches(name, known, n=1)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            raise ConfigError(f"engine_arg: vLLM has no argument {name!r}{hint}")


def _refusal(error: ValueError | TypeError) -> str:
    """What vLLM says, without pydantic's error itself, which no process can send to another."""
    faults = error.errors(include_url=False) if isinstance(error, ValidationError) else []
    messages = [fault["msg"].removeprefix("Value error, ") for fault in faults]
    return "; ".join(messages) or first_line(error)
