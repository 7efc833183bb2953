"""Engines for the benchmarks: each in a Ray actor pinned to one core, all loaded before anything is timed.

Beside the project's own worker stand the two rivals, on plain vLLM engines of the same settings: `generate` (sampling
as usual) and `generate_stepwise` (a request a token with the prefix cache on). Nothing here is measured by itself.
"""

from __future__ import annotations

import os
import time
from typing import Any

import ray

from engine.plan import Plan


class PlainWorker:
    """An ordinary vLLM engine with vLLM's own sampler, without the project's logits processor."""

    def __init__(self, engine_args: dict[str, Any]) -> None:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.v1.engine.llm_engine import LLMEngine

        args = EngineArgs(
            **engine_args,
            skip_tokenizer_init=True,
            generation_config="vllm",
            async_scheduling=False,
            disable_log_stats=True,
        )
        self._engine = LLMEngine.from_vllm_config(args.create_engine_config(), disable_log_stats=True)

    def ready(self) -> int:
        return os.getpid()

    def generate(self, prompts: list[list[int]], lengths: list[int], top_p: float) -> float:
        """Sample a response of exactly the given length to each prompt. Seconds."""
        began = time.perf_counter()
        self._engine.reset_prefix_cache()
        for index, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            self._add(index, prompt, length, top_p)
        while self._engine.has_unfinished_requests():
            self._engine.step()
        return time.perf_counter() - began

    def generate_stepwise(
        self, prompts: list[list[int]], responses: list[list[int]], slots: int, logprobs: int | None
    ) -> float:
        """A request a token: at each step one max_tokens=1 request for every sequence in flight, then the next.

        The next token is the given response's, so the rival is spared the exchange and the decision. logprobs: how
        many of vLLM's log-probabilities each request asks for; a decision needs some, None asks for none. Seconds.
        """
        began = time.perf_counter()
        self._engine.reset_prefix_cache()
        waiting = list(zip(prompts, responses, strict=True))
        flying: list[tuple[list[int], list[int], int]] = []
        number = 0
        while waiting or flying:
            while waiting and len(flying) < slots:
                flying.append((*waiting.pop(0), 0))
            for prompt, response, position in flying:
                self._add(number, prompt + response[:position], 1, 1.0, logprobs)
                number += 1
            while self._engine.has_unfinished_requests():
                self._engine.step()
            flying = [(p, r, at + 1) for p, r, at in flying if at + 1 < len(r)]
        return time.perf_counter() - began

    def _add(self, index: int, prompt: list[int], max_tokens: int, top_p: float, logprobs: int | None = None) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            temperature=1.0,
            top_p=top_p,
            max_tokens=max_tokens,
            logprobs=logprobs,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._engine.add_request(str(index), {"prompt_token_ids": prompt}, params)


def start_plain(plan: Plan) -> dict[str, Any]:
    """A plain engine a policy, on the cores that the plan's pair has."""
    config = plan.pair_config(0)
    workers = {}
    for policy, worker in config.workers.items():
        environment = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_CPU_OMP_THREADS_BIND": config.cores[policy],
            "OMP_NUM_THREADS": "1",
        }
        actor = ray.remote(PlainWorker).options(num_cpus=0, runtime_env={"env_vars": environment})
        workers[policy] = actor.remote(worker.engine_args | {"kv_cache_memory_bytes": config.kv_cache_bytes})
    ray.get([worker.ready.remote() for worker in workers.values()])
    return workers
