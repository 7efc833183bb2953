"""Plain vLLM engines to compare a pair with: started, placed and pinned by the project's own
launcher.

A `PlainWorker` is a PolicyWorker whose engine has vLLM's own sampler in place of ours. All else is
equal: arguments, scheduler, KV blocks, cores, environment, what Python's garbage collector may look
through.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from benchmarks.random_weights import RandomWeightsWorker
from engine.lockstep.engine_pair import EnginePair, PairConfig
from engine.lockstep.lease_runner import LeaseRunner
from engine.lockstep.worker import Loaded, PolicyWorker
from engine.sampling.link import Address

# Of the GPUs that a pair would take by itself, the shares of lock-step and of the plain engines, so
# that both fit. More than half for the first: where there are two GPUs, Ray then cannot put both
# engines of a pair on one.
_GPU_SHARES = (0.6, 0.4)


class PlainWorker(RandomWeightsWorker):
    """An ordinary vLLM engine, which meets nobody."""

    def load(self, kv_cache_bytes: int | None) -> Loaded:
        """Build the engine as PolicyWorker does, with vLLM's own sampler."""
        from engine.lockstep.vllm_engine import make_engine

        self._engine, config = make_engine(self._config.engine_args, kv_cache_bytes, False)
        self.fill()
        cache = config.cache_config
        return Loaded(cache.num_gpu_blocks or 0, cache.block_size, "its own sampler")

    def open(self, kind: str, host: str) -> list[Address]:
        return []

    def accept(self) -> None: ...

    def connect(self, addresses: list[Address]) -> None: ...

    def generate(
        self, prompts: list[list[int]], lengths: list[int], sampling: dict[str, Any]
    ) -> int:
        """A response of exactly the given length to each prompt. Returns the number of steps that
        it took.
        """
        self._engine.reset_prefix_cache()
        self._request(prompts, lengths, sampling)
        num_steps = num_tokens = 0
        while self._engine.has_unfinished_requests():
            num_tokens += sum(len(output.outputs[0].token_ids) for output in self._engine.step())
            num_steps += 1
        assert num_tokens == sum(lengths), (
            "the plain engine has made other tokens than it was asked for"
        )
        return num_steps

    def _request(
        self, prompts: list[list[int]], lengths: list[int], sampling: dict[str, Any]
    ) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            params = SamplingParams(
                **sampling,
                max_tokens=length,
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._engine.add_request(str(index), {"prompt_token_ids": prompt}, params)


@contextmanager
def loaded(
    config: PairConfig, worker_class: type[PolicyWorker]
) -> Iterator[tuple[LeaseRunner, EnginePair]]:
    """A pair in lock-step, of worker_class, and two plain engines of the same configuration, all
    loaded.
    """
    ours, theirs = (replace(config, gpus=share * config.gpus) for share in _GPU_SHARES)
    pair, plain = LeaseRunner(ours, worker_class), EnginePair(theirs, PlainWorker)
    try:
        blocks = []
        for engines in (pair.engines, plain):
            engines.place()
            blocks.append(engines.load())
        assert len(set(blocks)) == 1, f"KV blocks differ: {blocks}"
        yield pair, plain
    finally:
        pair.kill()
        plain.kill()
