"""EnginePair: two PolicyWorkers as Ray actors, placed, loaded, connected, listened to and ended.

It knows nothing of trajectories: `lease_runner` says what the two engines do. Every error of Ray or
of a worker leaves here as an EngineError.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine.core import POLICIES
from engine.errors import EngineError, LockstepError
from engine.lockstep.cluster import dead_processes
from engine.lockstep.kv_cache import KvCacheNeeds, kv_cache_bytes
from engine.lockstep.placing import address_of, give_back, reserve
from engine.lockstep.processes import EngineProcesses
from engine.lockstep.ray_errors import engine_errors
from engine.lockstep.worker import (
    Decided,
    Finished,
    Loaded,
    Place,
    PolicyWorker,
    Requests,
    Switched,
    WorkerConfig,
)
from engine.sampling.prefill import Targets
from engine.sampling.sampler import Phase
from engine.system.log import log_event, remove_if_empty

_PLACING_SECONDS, _LOADING_SECONDS, _CLOSING_SECONDS = 300.0, 3600.0, 5.0
_GRACE_SECONDS, _SWITCHING_SECONDS = 30.0, 900.0
_SWITCH_BEGINS = "an engine begins to load weights"
# Settings of the user's shell that workers on other nodes must have too.
_PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME", "VLLM_USE_V2_MODEL_RUNNER", "VLLM_BATCH_INVARIANT")


@dataclass(frozen=True, slots=True)
class PairConfig:
    """How to start one pair of engines."""

    workers: Mapping[str, WorkerConfig]
    """Policy -> the configuration of its engine."""
    gpus: float
    """GPUs of each engine; 0 on a CPU, 0.5 where both share one."""
    tensor_parallel_size: int
    share_gpu: bool
    idle_helps: bool
    """Whether an idle engine may load its twin's weights, as both models are of one make."""
    weight_bytes: int
    """Bytes of all weights that share one device."""
    checkpoint_bytes: int
    """Size of the larger checkpoint, which every rank reads to load its weights."""
    kv_cache_bytes: int | None
    """KV cache of one engine on one device; None: as the free memory of the GPU allows."""
    kv_cache_needs: KvCacheNeeds
    rendezvous: str
    """How the samplers meet: "auto", "shm" or "tcp"."""
    cores: Mapping[str, str]
    """Policy -> cores that its threads are bound to, in vLLM's notation; on the CPU only."""
    number: int = 1
    """Number of the pair in its run, from 1."""


class EnginePair:
    """Two engines that meet in their samplers.

    Call `place`, then `load`, then `stream` once a phase; and `kill` always, also after an error.

    Args:
        config: How to start the two engines.
        worker_class: What hosts an engine. Benchmarks put a stopwatch into it, tests a fault.
    """

    def __init__(self, config: PairConfig, worker_class: type[PolicyWorker] = PolicyWorker) -> None:
        self._config, self._worker_class = config, worker_class
        self.workers: dict[str, Any] = {}
        self.places: dict[str, Place] = {}
        self.may_switch = config.idle_helps
        """Whether an engine may load its twin's weights. A switch that fails ends that for good."""
        self._weights: dict[str, tuple[str, ...]] = {}  # policy -> the fingerprint of its model
        self.holds: dict[str, str] = {}
        """Policy of each engine -> the policy whose weights it has been proved to hold, or ""."""
        self._switching: dict[str, str] = {}  # the same for engines that are on their way there
        self._pending: dict[Any, str] = {}  # a call's messages -> the policy of its engine
        self._group: PlacementGroup | None = None
        self._processes = EngineProcesses()
        log = config.workers[POLICIES[0]].log
        self._logs = log.folder if log else None

    def place(self) -> str:
        """Choose where the two engines run. Returns their hosts and how they meet, for the user.

        Raises:
            EngineError: The cluster has no room for them.
        """
        config = self._config
        with engine_errors(self._logs):
            self._group = reserve(float(config.tensor_parallel_size), config.gpus, config.share_gpu)
            self._start_workers()
        base, rl = (address_of(self.places[policy]) for policy in POLICIES)
        hosts = f"on {base}" if self._on_one_host() else f"base on {base}, rl on {rl}"
        return f"{hosts}, {self._rendezvous()} rendezvous"

    def load(self) -> int:
        """Load the two engines and connect their samplers: minutes for large models.

        Returns:
            The number of KV blocks of each engine.

        Raises:
            EngineError: An engine cannot be loaded, or the two would not stay in lock-step.
        """
        with engine_errors(self._logs):
            num_blocks = self._load_engines()
            self._connect()
            self._processes.remember(self.places.values())
        return num_blocks

    def stream(
        self, work: Mapping[str, tuple[Phase, Requests]]
    ) -> Iterator[tuple[str, Finished | Decided]]:
        """Run a phase on each policy of `work` and yield (policy, message) as messages come.

        Every engine holds the weights of its own policy then.

        Raises:
            LockstepError: No engine has said anything for the step time-out and a grace period.
            EngineError: An engine failed.
        """
        self.switch_back()
        for policy, phase in work.items():
            self.begin(policy, *phase)
        while self.is_busy:
            policy, message = self.next_message()
            if message is not None:
                assert not isinstance(message, Switched)
                yield policy, message

    def begin(
        self, policy: str, phase: Phase | None, requests: Requests, num_left: int = 0
    ) -> None:
        """Let one engine carry sequences (`PolicyWorker.run`); `next_message` has what it says."""
        self._call(policy, "run", phase, requests, num_left)

    def begin_switch(self, policy: str, to: str) -> None:
        """Let one engine load the weights of policy `to`; `next_message` has what it says."""
        log_event(_SWITCH_BEGINS, engine=policy, weights=to)
        self._switching[policy] = to
        self.holds.pop(policy, None)  # nothing is proved until it has ended
        self._call(policy, "switch", self._config.workers[to].engine_args["model"])

    @property
    def is_busy(self) -> bool:
        """Whether an engine has not ended what it was asked for."""
        return bool(self._pending)

    def next_message(self) -> tuple[str, Finished | Decided | Switched | pa.Table | None]:
        """The next message of any engine, with the engine's policy; None where a call has ended.

        Raises:
            LockstepError: No engine has said anything for the step time-out and a grace period.
            EngineError: An engine failed, or holds other weights than it was to load.
        """
        with engine_errors(self._logs):
            all_switch = set(self._pending.values()) <= self._switching.keys()
            timeout = _SWITCHING_SECONDS if all_switch else self._reply_timeout
            ready, _ = ray.wait(list(self._pending), num_returns=1, timeout=timeout)
            if not ready and all_switch:
                self.may_switch = False
                raise EngineError(f"an engine has not loaded weights within {timeout:g} s")
            if not ready:
                raise LockstepError(
                    f"no engine of the pair has said anything for {timeout:g} s (step_timeout)"
                )
            policy = self._pending[ready[0]]
            with self._switch_errors(policy):
                try:
                    message = ray.get(next(ready[0]))
                except StopIteration:
                    del self._pending[ready[0]]
                    return policy, None
                if isinstance(message, Switched):
                    self._prove(policy, message)
            return policy, message

    def switch_back(self) -> None:
        """Give every engine the weights of its own policy again.

        Raises:
            EngineError: One holds others afterwards, or its call failed.
        """
        while self.is_busy:  # an engine may be on its way back
            self.next_message()
        for policy, held in list(self.holds.items()):
            if held != policy:
                self.begin_switch(policy, policy)
        while self.is_busy:
            self.next_message()

    def _call(self, policy: str, method: str, *arguments: Any) -> None:
        call = getattr(self.workers[policy], method).options(num_returns="streaming")
        self._pending[call.remote(*arguments)] = policy

    @contextmanager
    def _switch_errors(self, policy: str) -> Iterator[None]:
        """After an engine has failed at a switch, the pair is not asked for another."""
        is_switch = policy in self._switching
        try:
            yield
        except Exception:
            self.may_switch &= not is_switch
            raise

    def _prove(self, policy: str, message: Switched) -> None:
        """Note what an engine holds, if it is what it was to load.

        If it is not, the engine is given nothing to do before it has its own weights again.

        Raises:
            EngineError: It was to have its own weights again, and has not.
        """
        to = self._switching.pop(policy)
        as_asked = message.weights == self._weights[to]
        self.holds[policy] = to if as_asked else ""
        self.may_switch &= as_asked
        log_event(
            "an engine has loaded weights" if as_asked else "an engine holds other weights",
            logging.INFO if as_asked else logging.WARNING,
            engine=policy, weights=to, seconds=message.seconds,
        )  # fmt: skip
        if not as_asked and to == policy:
            raise EngineError(
                f"the engine of {policy} has other weights than when it was started, after loading"
                f" {self._config.workers[to].engine_args['model']} again"
            )

    def measure(
        self, work: Mapping[str, tuple[list[list[int]], Targets]]
    ) -> Iterator[tuple[str, pa.Table | Decided]]:
        """Measure texts on each policy of `work`, each engine at its own pace.

        Yields:
            (policy, message) as the messages of `PolicyWorker.measure` come.

        Raises:
            EngineError: An engine failed, or has been silent for too long.
        """
        self.switch_back()
        for policy, (texts, targets) in work.items():
            self._call(policy, "measure", texts, targets)
        while self.is_busy:
            policy, message = self.next_message()
            if message is not None:
                assert not isinstance(message, Finished | Switched)
                yield policy, message

    def kill(self) -> None:
        """End both engines now, whatever they are doing, and give their room back."""
        self.holds, self._switching, self._pending = {}, {}, {}
        if not ray.is_initialized():  # gone with their cluster; asking Ray would start another
            self.workers, self.places, self._group = {}, {}, None
        self._processes.remember(self.places.values())
        if dead_processes():  # asking Ray would take a minute
            self.workers, self._group = {}, None
        if self._config.tensor_parallel_size > 1 and self.workers:
            with suppress(Exception):  # a dead or busy engine does not answer
                closing = [worker.close.remote() for worker in self.workers.values()]
                ray.wait(closing, num_returns=len(closing), timeout=_CLOSING_SECONDS)
        for worker in list(self.workers.values()):
            with suppress(Exception):  # the cluster itself may be gone
                ray.kill(worker)
        self._processes.kill()
        for policy, place in self.places.items():
            if log := self._config.workers[policy].log:
                remove_if_empty(log, place.pid)
        group, self._group = self._group, None
        self.workers, self.places = {}, {}
        if group:
            give_back(group)

    def _start_workers(self) -> None:
        config = self._config
        for bundle, policy in enumerate(POLICIES):
            actor = ray.remote(self._worker_class).options(
                num_cpus=float(config.tensor_parallel_size),
                num_gpus=config.gpus,
                max_restarts=0,
                runtime_env={"env_vars": _environment(config, policy)},
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._group, 0 if config.share_gpu else bundle
                ),
            )
            self.workers[policy] = actor.remote(config.workers[policy])
        self.places = {
            policy: ray.get(worker.place.remote(), timeout=_PLACING_SECONDS)
            for policy, worker in self.workers.items()
        }

    def _load_engines(self) -> int:
        kv_bytes = self._kv_cache_bytes()
        if self._config.share_gpu:  # one after the other: each measures what the other leaves
            loaded = [
                ray.get(worker.load.remote(kv_bytes), timeout=_LOADING_SECONDS)
                for worker in self.workers.values()
            ]
        else:
            loading = [worker.load.remote(kv_bytes) for worker in self.workers.values()]
            loaded = ray.get(loading, timeout=_LOADING_SECONDS)
        check_alike(*loaded)
        self._weights = {
            policy: engine.weights for policy, engine in zip(self.workers, loaded, strict=True)
        }
        self.holds = {policy: policy for policy in self.workers}
        return int(loaded[0].num_kv_blocks)

    def _kv_cache_bytes(self) -> int | None:
        """KV cache of one engine on one device: as configured, else by the free GPU memory."""
        config = self._config
        free = [place.free_gpu_bytes for place in self.places.values() if place.free_gpu_bytes]
        if config.kv_cache_bytes is not None or not free:
            return config.kv_cache_bytes
        num_engines = 2 if config.share_gpu else 1
        return kv_cache_bytes(min(free), config.weight_bytes, num_engines, config.kv_cache_needs)

    def _on_one_host(self) -> bool:
        base, rl = (self.places[policy] for policy in POLICIES)
        return base.node_id == rl.node_id

    def _rendezvous(self) -> str:
        """How the samplers meet: what was asked for, or what their places allow."""
        kind, on_one_host = self._config.rendezvous, self._on_one_host()
        if kind == "auto":
            return "shm" if on_one_host else "tcp"
        if kind == "shm" and not on_one_host:
            base, rl = (address_of(self.places[policy]) for policy in POLICIES)
            raise EngineError(
                f"rendezvous is shm, but the engines are on {base} and {rl}: give auto or tcp"
            )
        return kind

    def _connect(self) -> None:
        """Connect the two samplers: base's opens, rl's comes to it."""
        opener, joiner = (self.workers[policy] for policy in POLICIES)
        host = "127.0.0.1" if self._on_one_host() else address_of(self.places[POLICIES[0]])
        timeout = self._reply_timeout
        addresses = ray.get(opener.open.remote(self._rendezvous(), host), timeout=timeout)
        connecting = [opener.accept.remote(), joiner.connect.remote(addresses)]
        ray.get(connecting, timeout=timeout)

    @property
    def _reply_timeout(self) -> float:
        """Seconds to wait for a message of an engine.

        Longer than a step's time-out: the twin of a dead or stalled engine notices first, and says
        more about it.
        """
        return self._config.workers[POLICIES[0]].step_timeout + _GRACE_SECONDS


def check_alike(base: Loaded, rl: Loaded) -> None:
    """Check that both engines have become the same, else they would not stay in lock-step.

    Raises:
        EngineError: They differ.
    """
    if base.model_runner != rl.model_runner:
        raise EngineError(
            f"vLLM runs base by model runner {base.model_runner} and rl by {rl.model_runner}, which"
            " would not stay in lock-step: set VLLM_USE_V2_MODEL_RUNNER=0 for both"
        )
    if base.kv_block_size != rl.kv_block_size:
        raise EngineError(
            f"the engines have KV blocks of {base.kv_block_size} and {rl.kv_block_size} tokens and"
            " would not stay in lock-step: their attention backends differ, so the two models are"
            " not of one architecture"
        )
    if base.num_kv_blocks != rl.num_kv_blocks:
        raise EngineError(
            f"the engines have KV caches of different size ({base.num_kv_blocks} and"
            f" {rl.num_kv_blocks} blocks) and would not stay in lock-step: give --num-kv-blocks"
            f" {min(base.num_kv_blocks, rl.num_kv_blocks)}"
        )


def _environment(config: PairConfig, policy: str) -> dict[str, str]:
    """Environment variables of a policy's worker."""
    variables = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in the worker's process
        "VLLM_CONFIGURE_LOGGING": "0",  # its records go where ours do
        "VLLM_NO_USAGE_STATS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if cores := config.cores.get(policy):
        variables["VLLM_CPU_OMP_THREADS_BIND"] = cores
        variables["OMP_NUM_THREADS"] = str(len(cores.split("|")[0].split(",")))
    if not config.gpus:
        variables["CUDA_VISIBLE_DEVICES"] = ""  # --device cpu on a machine with GPUs
    return variables | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
