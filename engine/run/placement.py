"""Where a plan runs: the configuration of each pair of engines, its cores, and its Ray cluster."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

from engine.config.engine_args import MAY_DIFFER
from engine.config.run_config import CPU_KV_CACHE_GIB
from engine.core import POLICIES, Policy
from engine.lockstep.cluster import joined_cluster, own_cluster
from engine.lockstep.engine_pair import PairConfig
from engine.lockstep.kv_cache import KvCacheNeeds
from engine.lockstep.worker import WorkerConfig
from engine.run.plan import Plan
from engine.sampling.distribution import Sampling
from engine.sampling.sampler import SamplerConfig
from engine.system.machine import usable_cores

_MIN_BATCHED_TOKENS = 2048


def pair_config(plan: Plan, number: int) -> PairConfig:
    """How to start pair `number` of the run, counted from 0."""
    config, on_gpu = plan.config, plan.device == "cuda"
    # On the CPU also beside num_kv_blocks, which wins: without it vLLM insists on 92 % of the
    # memory being free.
    kv_gib = config.kv_cache_gib or (None if on_gpu else CPU_KV_CACHE_GIB)
    gpus = 0.0
    if on_gpu:
        gpus = 0.5 if config.share_gpu else float(config.tensor_parallel_size)
    return PairConfig(
        workers={policy: _worker_config(plan, policy, number) for policy in POLICIES},
        gpus=gpus,
        tensor_parallel_size=config.tensor_parallel_size,
        share_gpu=config.share_gpu,
        idle_helps=_idle_helps(plan),
        weight_bytes=plan.memory.weights,
        checkpoint_bytes=max(plan.pair.base_weight_bytes, plan.pair.rl_weight_bytes),
        kv_cache_bytes=int(kv_gib * 2**30) if kv_gib else None,
        kv_cache_needs=KvCacheNeeds(
            plan.memory.kv_per_sequence, plan.num_slots, plan.pair.vocab_size
        ),
        rendezvous=config.rendezvous,
        cores={} if on_gpu else core_binding(plan, number),
        number=number + 1,
    )


def _idle_helps(plan: Plan) -> bool:
    """Whether an idle engine may load its twin's weights: nothing but the weights differs.

    Engines that share a GPU are never idle, since the other one has the whole GPU then. What says
    how weights are found, stored or converted is left alone: vLLM cannot load all of it anew.
    """
    config = plan.config
    base, rl = (config.engine_args(policy) for policy in POLICIES)
    plain = not any(name in MAY_DIFFER or "offload" in name for name in base)
    return config.idle_helps and plan.pair.alike and base == rl and plain and not config.share_gpu


def ray_cluster(plan: Plan) -> AbstractContextManager[None]:
    """The Ray cluster of the run: the one at ray_address, or one of our own for a `with` block."""
    if plan.config.ray_address:
        return joined_cluster(plan.config.ray_address)
    num_engines = len(POLICIES) * plan.config.pairs
    num_cpus = num_engines * plan.config.tensor_parallel_size
    return own_cluster(max(num_cpus, len(os.sched_getaffinity(0))))


def core_binding(plan: Plan, number: int) -> dict[str, str]:
    """Cores of each engine of pair `number`, in vLLM's notation: ranks are separated by |."""
    usable = sorted(os.sched_getaffinity(0))
    ranks = plan.config.tensor_parallel_size
    cores_per_rank = max(1, usable_cores() // (len(POLICIES) * plan.config.pairs * ranks))
    binding: dict[str, str] = {}
    for place, policy in enumerate(POLICIES):
        first = (number * len(POLICIES) + place) * ranks * cores_per_rank
        lists = [
            [
                usable[(first + rank * cores_per_rank + core) % len(usable)]
                for core in range(cores_per_rank)
            ]
            for rank in range(ranks)
        ]
        binding[policy] = "|".join(",".join(map(str, cores)) for cores in lists)
    return binding


def _worker_config(plan: Plan, policy: Policy, number: int) -> WorkerConfig:
    config, pair = plan.config, plan.pair
    sampler = SamplerConfig(
        policy,
        pair.vocab_size,
        Sampling(config.temperature, config.top_p, config.top_k),
        config.record_threshold,
        config.record_top_k,
    )
    return WorkerConfig(
        sampler,
        _engine_args(plan, pair.base if policy == "base" else pair.rl) | config.engine_args(policy),
        pair.stop_token_ids,
        config.step_timeout,
        _idle_helps(plan),
        plan.log_config(f"{policy}-{number + 1}"),
        os.environ.get("HF_TOKEN"),
    )


def _engine_args(plan: Plan, model: str) -> dict[str, Any]:
    """vLLM's own arguments of one engine."""
    config = plan.config
    eager = plan.device == "cpu" if config.enforce_eager is None else config.enforce_eager
    smallest_step = plan.work.longest_prompt + plan.num_slots
    return {
        "model": model,
        "dtype": plan.pair.dtype if config.dtype == "auto" else config.dtype,
        "max_model_len": plan.max_model_len,
        "max_num_seqs": plan.num_slots,
        "max_num_batched_tokens": config.max_num_batched_tokens
        or max(_MIN_BATCHED_TOKENS, smallest_step),
        "tensor_parallel_size": config.tensor_parallel_size,
        # vLLM's Ray executor inside a Ray actor would lose the placement group.
        "distributed_executor_backend": "mp" if config.tensor_parallel_size > 1 else None,
        "num_gpu_blocks_override": config.num_kv_blocks,
        "enforce_eager": eager,
        "trust_remote_code": config.trust_remote_code,
        "enable_prefix_caching": True,
        "seed": 0,  # of vLLM's own sampler, which never draws
    }
