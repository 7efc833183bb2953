"""PolicyWorker: hosts one vLLM engine, one policy of a pair, in a process of its own (a Ray actor).

It runs phases: a list of sequences that is given whole before the first step, so that vLLM's
scheduler, which is deterministic, does the same on both sides. It knows nothing of problems,
budgets or files.
"""

from __future__ import annotations

import gc
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from engine.arrays import Bools, Ints
from engine.errors import EngineError
from engine.sampling.link import Address
from engine.sampling.sampler import Phase, SamplerConfig
from engine.system.log import LogConfig, redirect_streams

# Finished sequences go to the driver when there are so many, or after so many steps: few messages,
# little to lose. Counted in steps, not seconds, so that both sides of a pair send the same
# messages.
_BATCH, _STEPS = 256, 256
_TELL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """One engine. engine_args are vLLM's own; stop_token_ids the union of both policies' EOS ids;
    log: its own.

    hub_token: the user's, for a worker on another node; not in its environment, which Ray puts on
    command lines.
    """

    sampler: SamplerConfig
    engine_args: dict[str, Any]
    stop_token_ids: tuple[int, ...]
    step_timeout: float
    log: LogConfig | None = field(default=None, compare=False)
    hub_token: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Requests:
    """What goes into the engine, in the order of `Phase`: prompts [S] of token ids, and most tokens
    to generate [S].

    stops: stop tokens end a sequence; a given response may hold them anywhere.
    """

    prompts: list[list[int]]
    max_tokens: list[int]
    stops: bool = True


@dataclass(frozen=True, slots=True)
class Finished:
    """Some sequences that have left the engine, in the order in which they did; the same on both
    sides of a pair.

    sequence [F]; emitted [F]: tokens the engine generated, a hand-back's stop token included;
    stopped [F]: ended by a stop token, else by length. trace: their rows, see
    `trace.Trace.collect`.
    """

    sequence: Ints
    emitted: Ints
    stopped: Bools
    trace: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Decided:
    """Sent about once a second, also as a sign of life."""

    num_tokens: int
    """Positions decided since the last one."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs. free_gpu_bytes: None without a GPU."""

    node_id: str
    pid: int
    free_gpu_bytes: int | None


class PolicyWorker:
    """One engine. `load`, then `open`/`accept` on one side and `join` on the other, then `run` a
    phase at a time.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        if config.hub_token:
            os.environ["HF_TOKEN"] = config.hub_token
        if config.log:
            redirect_streams(config.log)

    def place(self) -> Place:
        """Where this worker runs; asked before `load`, which needs to know what the twin has."""
        import ray
        import torch

        free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
        return Place(ray.get_runtime_context().get_node_id(), os.getpid(), free)

    def load(self, kv_cache_bytes: int | None) -> int:
        """Build the engine: minutes for a large model. Returns the number of its KV blocks.

        kv_cache_bytes: None where engine_args say the size in blocks.
        """
        # what is imported stays; looking through it for garbage again and again takes a fifth of
        # the time
        gc.disable()
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        from engine.lockstep.vllm_plugin import ADDITIONAL_CONFIG, SamplerCalls, processor_for

        gc.freeze()
        gc.enable()
        args = EngineArgs(
            **self._config.engine_args,
            # With the KV size given this only decides whether vLLM refuses a GPU that is partly in
            # use: by the twin.
            **({"gpu_memory_utilization": 0.01} if kv_cache_bytes else {}),
            kv_cache_memory_bytes=kv_cache_bytes,
            additional_config={ADDITIONAL_CONFIG: asdict(self._config.sampler)},
            worker_extension_cls=f"{SamplerCalls.__module__}.{SamplerCalls.__qualname__}",
            skip_tokenizer_init=True,  # token ids in, token ids out
            # a model's own sampling defaults would differ between the two
            generation_config="vllm",
            async_scheduling=False,  # the next batch must depend on this one's tokens
            disable_log_stats=True,
        )
        config = args.create_engine_config()
        config.model_config.logits_processors = [processor_for(config)]
        self._engine = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        return config.cache_config.num_gpu_blocks or 0

    def open(self, kind: str, host: str) -> list[Address]:
        """Prepare to meet the twin; a meeting a tensor-parallel rank."""
        return list(
            self._engine.collective_rpc(
                "xsample_open", args=(kind, host, self._config.step_timeout)
            )
        )

    def accept(self) -> None:
        """Wait for the twin, that has been told the meetings."""
        self._engine.collective_rpc("xsample_accept")

    def connect(self, meetings: list[Address]) -> None:
        """Go to where the twin waits."""
        self._engine.collective_rpc("xsample_connect", args=(meetings, self._config.step_timeout))

    def close(self) -> None:
        """Let vLLM end its rank processes, which then take their shared memory away."""
        self._engine.engine_core.shutdown()

    def run(self, phase: Phase, requests: Requests) -> Iterator[Finished | Decided]:
        """Carry the sequences of a phase to their end. Both sides of a pair send the same
        `Finished` messages.
        """
        # Solo phases leave other blocks in each engine's cache; hits would differ, and with them
        # the schedules.
        if phase.paired and not self._engine.reset_prefix_cache():
            raise EngineError(
                "vLLM did not reset its prefix cache: requests of an earlier phase are still there"
            )
        self._engine.collective_rpc("xsample_begin", args=(phase,))
        self._admit(requests)
        done: list[_Ended] = []
        told = time.monotonic()
        for step in itertools.count(1):
            for output in self._engine.step():
                done.append(_ended(output))
            ended = not self._engine.has_unfinished_requests()
            if len(done) >= _BATCH or (done and (ended or step % _STEPS == 0)):
                yield self._collect(done)
                done = []
            if ended or time.monotonic() - told > _TELL_SECONDS:
                told = time.monotonic()
                yield Decided(self._engine.collective_rpc("xsample_decided")[0])
            if ended:
                return

    def _admit(self, requests: Requests) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for index, (prompt, max_tokens) in enumerate(
            zip(requests.prompts, requests.max_tokens, strict=True)
        ):
            params = SamplingParams(
                temperature=0.0,  # the sampler has decided; greedy takes its token
                max_tokens=max_tokens,
                stop_token_ids=list(self._config.stop_token_ids) if requests.stops else [],
                ignore_eos=True,  # each model's own EOS is in stop_token_ids, on both sides
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
                extra_args={"sequence": index, "num_prompt": len(prompt)},
            )
            self._engine.add_request(str(index), {"prompt_token_ids": prompt}, params)

    def _collect(self, done: list[_Ended]) -> Finished:
        sequence, emitted, last = (
            np.array(column, np.int64) for column in list(zip(*done, strict=True))[:3]
        )
        trace = self._engine.collective_rpc("xsample_collect", args=(sequence, emitted, last))[0]
        return Finished(
            sequence, emitted, np.array([ended.stopped for ended in done], np.bool_), trace
        )


class _Ended(NamedTuple):
    """A sequence that has left the engine: its number, how many tokens it emitted, the last, ended
    by a stop token?
    """

    sequence: int
    emitted: int
    last: int
    stopped: bool


def _ended(output: Any) -> _Ended:
    result = output.outputs[0]
    if result.finish_reason not in ("stop", "length"):
        raise EngineError(
            f"vLLM ended sequence {output.request_id} with reason {result.finish_reason!r}"
        )
    return _Ended(
        int(output.request_id),
        len(result.token_ids),
        result.token_ids[-1],
        result.finish_reason == "stop",
    )
