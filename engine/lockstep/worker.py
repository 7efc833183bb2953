"""PolicyWorker: hosts one vLLM engine, one policy of a pair, in a process of its own (a Ray actor).

It runs phases. All sequences of a phase are given before its first step, so that vLLM's scheduler,
which is deterministic, does the same on both sides. Problems, budgets and files are not known here.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from engine.arrays import Bools, Ints
from engine.errors import EngineError, LockstepError
from engine.lockstep.weights import PROBE_STEPS, probe_prompt
from engine.sampling.link import Address
from engine.sampling.prefill import Targets
from engine.sampling.sampler import Phase, SamplerConfig
from engine.system.log import LogConfig, redirect_streams
from engine.system.machine import free_gpu_memory

SEQUENCES_PER_MESSAGE = 256
"""Ended sequences go to the driver when there are so many of them.

Messages are then few, and there is little to lose.
"""

_ROWS_PER_MESSAGE = 2**13
"""Measured rows go to the driver when there are so many of them, some 10 MB."""

# Or after so many steps. Steps, not seconds, so that both sides of a pair send the same messages.
_STEPS_PER_MESSAGE = 256
_SECONDS_PER_SIGN_OF_LIFE = 1.0


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """How to start one engine."""

    sampler: SamplerConfig
    engine_args: dict[str, Any]
    """Arguments of vLLM's `EngineArgs`."""
    stop_token_ids: tuple[int, ...]
    """The union of both policies' EOS ids."""
    step_timeout: float
    """Seconds that the twin may stay silent."""
    idle_helps: bool = False
    """Whether the engine may load other weights, so that it tells what it holds."""
    log: LogConfig | None = field(default=None, compare=False)
    """The log of this engine alone."""
    hub_token: str | None = field(default=None, compare=False, repr=False)
    """The user's token, for a worker on another node.

    It is not in the worker's environment, because Ray puts that on command lines.
    """


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of a phase to its engine, in the order of the phase's sequences."""

    prompts: list[list[int]]
    """Token ids of each prompt [S]."""
    max_tokens: list[int]
    """Most tokens to generate for each [S]."""
    first: int = 0
    """Index in the phase of the first of these sequences; the others follow it."""

    def piece(self, start: int, stop: int) -> Requests:
        """The requests from one of them up to another one."""
        part = slice(start, stop)
        return Requests(self.prompts[part], self.max_tokens[part], self.first + start)


@dataclass(frozen=True, slots=True)
class Finished:
    """Sequences that have left the engine, in that order; both sides of a pair send the same."""

    sequence: Ints
    """Their indices in the phase [F]."""
    emitted: Ints
    """Tokens that the engine generated for each [F], the stop token of a hand-back included."""
    stopped: Bools
    """Whether each ended by a stop token [F], else by its length."""
    trace: pa.RecordBatch
    """Their rows, as `Trace.collect` gives them."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Sent about once a second, also as a sign of life."""

    num_tokens: int
    """Positions decided since the last one."""
    seconds: float
    """What they took."""


@dataclass(frozen=True, slots=True)
class Switched:
    """Weights have been loaded in the place of others."""

    weights: tuple[str, ...]
    """The fingerprint of what every rank holds now."""
    seconds: float
    """What it took."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs."""

    node_id: str
    """The node, in Ray's words."""
    pid: int
    free_gpu_bytes: int | None
    """Free memory of its GPU, the least of several; None without a GPU."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an engine has become, as far as its twin must have become the same."""

    num_kv_blocks: int
    kv_block_size: int
    """Tokens of a KV block."""
    model_runner: str
    """vLLM's model runner: "V1" or "V2"."""
    weights: tuple[str, ...] = field(default=(), compare=False)
    """The fingerprint of the weights of every rank (`weights.py`)."""


class PolicyWorker:
    """Hosts one engine.

    Call `load`, then `open` and `accept` on one side and `connect` on the other, then `run` once a
    phase.

    Args:
        config: How to start the engine.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        if config.hub_token:
            os.environ["HF_TOKEN"] = config.hub_token
        if config.log:
            redirect_streams(config.log)

    def place(self) -> Place:
        """Where this worker runs.

        It is asked before `load`, whose KV cache depends on the free memory of both sides.
        """
        import ray

        # The engine of one rank is in this process, which will have a CUDA context anyway. Ranks
        # have processes of their own, and a context here would take half a GiB from one of them.
        own_process = self._config.engine_args["tensor_parallel_size"] > 1
        free = free_gpu_memory(own_process)
        return Place(ray.get_runtime_context().get_node_id(), os.getpid(), free)

    def load(self, kv_cache_bytes: int | None) -> Loaded:
        """Build the engine, which takes minutes for a large model.

        Args:
            kv_cache_bytes: Size of the KV cache; None where engine_args give it in blocks.

        Returns:
            What the engine has become. In lock-step both sides' are equal.

        Raises:
            EngineError: vLLM refuses its settings, or its model runner xsample's sampler.
        """
        from engine.lockstep.vllm_engine import make_engine

        self._engine, config = make_engine(self._config.engine_args, kv_cache_bytes)
        model_runner = self.configure(self._config.sampler)
        cache = config.cache_config
        num_blocks = cache.num_gpu_blocks or 0
        weights = self._weights() if self._config.idle_helps else ()
        return Loaded(num_blocks, cache.block_size, model_runner, weights)

    def switch(self, model: str) -> Iterator[Switched]:
        """Load the weights of another model of the same architecture in the place of those here.

        Args:
            model: Its folder or hub id.

        Yields:
            One message: what the engine holds then.

        Raises:
            EngineError: A request is still under way.
        """
        begun = time.monotonic()
        self._engine.collective_rpc("xsample_load", args=(model,))
        weights = self._weights()
        yield Switched(weights, time.monotonic() - begun)

    def _weights(self) -> tuple[str, ...]:
        """The fingerprint of every rank's weights; the KV cache is empty afterwards."""
        from vllm import SamplingParams

        self._reset_cache()  # a hit would show the weights that have filled it
        args = self._config.engine_args
        most = args["max_model_len"] - PROBE_STEPS
        prompt = probe_prompt(self._config.sampler.vocab_size, max(1, most))
        self._engine.collective_rpc("xsample_probe")
        params = SamplingParams(
            temperature=0.0,
            max_tokens=PROBE_STEPS,
            ignore_eos=True,
            detokenize=False,
            extra_args={"sequence": -1},
        )
        self._engine.add_request("probe", {"prompt_token_ids": prompt}, params)
        while self._engine.has_unfinished_requests():
            self._engine.step()
        self._reset_cache()
        return tuple(self._engine.collective_rpc("xsample_weights"))

    def _reset_cache(self) -> None:
        if not self._engine.reset_prefix_cache():
            raise EngineError(
                "vLLM did not reset its prefix cache: requests of an earlier phase are still there"
            )

    def configure(self, sampler: SamplerConfig) -> str:
        """Give the sampler other settings, between two phases.

        Returns:
            The model runner that calls it: "V1" or "V2".

        Raises:
            EngineError: vLLM's model runner has not taken xsample's sampler.
        """
        return str(self._engine.collective_rpc("xsample_configure", args=(sampler,))[0])

    def open(self, kind: str, host: str) -> list[Address]:
        """Listen for the twin.

        Args:
            kind: "shm" or "tcp".
            host: The address to listen on for "tcp".

        Returns:
            One address per tensor-parallel rank.
        """
        return list(
            self._engine.collective_rpc(
                "xsample_open", args=(kind, host, self._config.step_timeout)
            )
        )

    def accept(self) -> None:
        """Wait for the twin, which has been told the addresses."""
        self._engine.collective_rpc("xsample_accept")

    def connect(self, addresses: list[Address]) -> None:
        """Connect to the twin, which waits at one address per tensor-parallel rank."""
        self._engine.collective_rpc("xsample_connect", args=(addresses, self._config.step_timeout))

    def close(self) -> None:
        """Let vLLM end its rank processes, which then take their shared memory away."""
        self._engine.engine_core.shutdown()

    def run(
        self, phase: Phase | None, requests: Requests, num_left: int = 0
    ) -> Iterator[Finished | Decided]:
        """Carry sequences of a phase until few enough are left.

        Args:
            phase: What the sampler does with the sequences; None goes on with the last phase, which
                gets further sequences.
            requests: What the engine is asked for, in the order of the sequences.
            num_left: The call ends when not more sequences than these are under way. A later call
                finishes them.

        Yields:
            `Finished` messages, the same ones on both sides of a pair, and `Decided` messages.

        Raises:
            EngineError: vLLM did not do what it was asked for.
        """
        if phase:
            # Solo phases leave different blocks in the caches of the two engines. Hits would
            # differ, and with them the schedules.
            if phase.paired:
                self._reset_cache()
            self._engine.collective_rpc("xsample_begin", args=(phase,))
            self._ended: list[_EndedSequence] = []
        self._admit(requests)
        last_sign = time.monotonic()
        for step in itertools.count(1):
            if self._engine.get_num_unfinished_requests() > num_left:
                self._ended += map(_ended_sequence, self._engine.step())
            num_unfinished = self._engine.get_num_unfinished_requests()
            is_over = num_unfinished <= num_left
            is_due = not num_unfinished or step % _STEPS_PER_MESSAGE == 0
            if len(self._ended) >= SEQUENCES_PER_MESSAGE or (self._ended and is_due):
                yield self._collect(self._ended)
                self._ended = []
            now = time.monotonic()
            if is_over or now - last_sign > _SECONDS_PER_SIGN_OF_LIFE:
                yield Decided(self._num_decided(), now - last_sign)
                last_sign = now
            if is_over:
                return

    def measure(self, texts: list[list[int]], targets: Targets) -> Iterator[pa.Table | Decided]:
        """Measure tokens of texts, each of which is computed as one prompt.

        Args:
            texts: Token ids of each sequence, up to the last token whose successor is a target.
            targets: What is measured.

        Yields:
            The rows of ended sequences, see `prefill.measured_rows`, and `Decided` messages.
        """
        self._engine.collective_rpc("xsample_begin_measuring", args=(targets,))
        num_targets = np.bincount(targets.sequence, minlength=len(texts))
        for index, text in enumerate(texts):
            # A block that the cache holds is not computed, so that its rows would be missing.
            settings = {"skip_reading_prefix_cache": True, "extra_args": {"text": index}}
            self._add_request(index, text, 1, **settings)
        ended: list[int] = []
        num_measured, last_sign = 0, time.monotonic()
        while self._engine.has_unfinished_requests():
            ended += [int(output.request_id) for output in self._engine.step()]
            is_over = not self._engine.has_unfinished_requests()
            if is_over or num_targets[ended].sum() >= _ROWS_PER_MESSAGE:
                num_measured += int(num_targets[ended].sum())
                yield self._engine.collective_rpc("xsample_measured", args=(np.array(ended),))[0]
                ended = []
            now = time.monotonic()
            if is_over or now - last_sign > _SECONDS_PER_SIGN_OF_LIFE:
                yield Decided(num_measured, now - last_sign)
                num_measured, last_sign = 0, now

    def _admit(self, requests: Requests) -> None:
        stops = list(self._config.stop_token_ids)
        asked = zip(requests.prompts, requests.max_tokens, strict=True)
        for index, (prompt, max_tokens) in enumerate(asked, requests.first):
            extra_args = {"sequence": index, "num_prompt": len(prompt)}
            self._add_request(
                index, prompt, max_tokens, stop_token_ids=stops, extra_args=extra_args
            )

    def _add_request(self, index: int, prompt: list[int], max_tokens: int, **more: Any) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=0.0,  # the sampler has decided; greedy takes its token
            max_tokens=max_tokens,
            ignore_eos=True,  # each model's own EOS is in stop_token_ids, on both sides
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **more,
        )
        self._engine.add_request(str(index), {"prompt_token_ids": prompt}, params)

    def _num_decided(self) -> int:
        """Positions decided since the last call; every rank must have decided the same tokens."""
        by_rank = self._engine.collective_rpc("xsample_decided")
        if len(set(by_rank)) > 1:
            raise LockstepError(
                "the tensor-parallel ranks of an engine have decided different tokens: their GPUs"
                " must be of one type"
            )
        return int(by_rank[0].num_tokens)

    def _collect(self, ended: list[_EndedSequence]) -> Finished:
        """Settle ended sequences and fetch their rows."""
        columns = list(zip(*ended, strict=True))
        sequence, emitted, last = (np.array(column, np.int64) for column in columns[:3])
        trace = self._engine.collective_rpc("xsample_collect", args=(sequence, emitted, last))[0]
        return Finished(sequence, emitted, np.array(columns[3], np.bool_), trace)


class _EndedSequence(NamedTuple):
    """A sequence that has left the engine."""

    sequence: int
    """Its index in the phase."""
    emitted: int
    """Tokens that the engine generated."""
    last: int
    """The last of them."""
    stopped: bool
    """Whether it ended by a stop token, else by its length."""


def _ended_sequence(output: Any) -> _EndedSequence:
    result = output.outputs[0]
    if result.finish_reason not in ("stop", "length"):
        raise EngineError(
            f"vLLM ended sequence {output.request_id} with reason {result.finish_reason!r}"
        )
    return _EndedSequence(
        int(output.request_id),
        len(result.token_ids),
        result.token_ids[-1],
        result.finish_reason == "stop",
    )
