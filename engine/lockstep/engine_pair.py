"""Two PolicyWorkers as Ray actors: placed, loaded, introduced to each other, listened to, and
ended.

What they are given to do is `pair`'s matter. Every error of Ray or of a worker leaves here as an
EngineError.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine.errors import EngineError, LockstepError, LostEngineError
from engine.lockstep.cluster import lost
from engine.lockstep.worker import Finished, Place, PolicyWorker, Progress, Requests, WorkerConfig
from engine.sampling.sampler import Phase
from engine.system.log import remove_if_empty

POLICIES = ("base", "rl")
# Share of a GPU's free memory, less the weights, that the KV cache gets: activations and CUDA
# graphs need the rest.
_KV_SHARE = 0.8
_ONE_NODE_SECONDS, _ROOM_SECONDS, _PLACING_SECONDS, _LOADING_SECONDS = 3.0, 60.0, 300.0, 3600.0
_GRACE_SECONDS = 30.0
_CLOSING_SECONDS, _GIVING_BACK_SECONDS = 5.0, 2.0
# Settings of the user's shell that workers on other nodes must have too.
_PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME", "VLLM_USE_V2_MODEL_RUNNER")
_LESS_MEMORY = "give a smaller --kv-cache-gib, --max-num-seqs or --max-num-batched-tokens"
_VLLM_SHARED_MEMORY = ("/dev/shm/psm_*", "/dev/shm/vllm_dist_*", "/dev/shm/sem.mp-*")


@dataclass(frozen=True, slots=True)
class PairConfig:
    """How to start pair `number` of the run, from 1.

    workers: policy -> its engine. weight_bytes: of all that shares a device. kv_cache_bytes: an
    engine and device; None: by the free GPU memory. cores: OpenMP binding of each policy, CPU only,
    in vLLM's notation.
    """

    workers: Mapping[str, WorkerConfig]
    gpus: float
    tensor_parallel_size: int
    share_gpu: bool
    weight_bytes: int
    kv_cache_bytes: int | None
    rendezvous: str
    cores: Mapping[str, str]
    number: int = 1


class EnginePair:
    """Two engines that meet in their samplers. `place`, `load`, `stream` phases; `kill` always,
    also after an error.

    worker_class: what hosts an engine; benchmarks put a stopwatch into it, tests a fault.
    """

    def __init__(self, config: PairConfig, worker_class: type[PolicyWorker] = PolicyWorker) -> None:
        self._config, self._worker_class = config, worker_class
        self.workers: dict[str, Any] = {}
        self.places: dict[str, Place] = {}
        self._group: PlacementGroup | None = None
        self._processes: list[psutil.Process] = []
        self._shared_memory: set[Path] = set()

    def place(self) -> str:
        """Choose where the two engines run. Returns where that is, and how they meet. Raises
        EngineError.
        """
        with self._errors():
            self._group = self._reserve()
            self._start_workers()
        kind = self._rendezvous()
        where = {policy: _address(place) for policy, place in self.places.items()}
        hosts = (
            f"on {where['base']}"
            if self._on_one_host()
            else f"base on {where['base']}, rl on {where['rl']}"
        )
        return f"{hosts}, {kind} rendezvous"

    def load(self) -> int:
        """Load and introduce the two engines: minutes. Returns the number of KV blocks of each.
        Raises EngineError.
        """
        with self._errors():
            blocks = self._load()
            self._meet()
            self._note_processes()
        return blocks

    def _reserve(self) -> PlacementGroup:
        """Room for both engines, on one node if any has it, else on two."""
        config = self._config
        per_engine = {"CPU": float(config.tensor_parallel_size)} | (
            {"GPU": config.gpus} if config.gpus else {}
        )
        both = {name: 2 * number for name, number in per_engine.items()}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        fits = any(
            all(node.get(name, 0) >= number for name, number in both.items()) for node in nodes
        )
        for strategy, seconds in (
            ("STRICT_PACK", _ONE_NODE_SECONDS if fits else 0.0),
            ("PACK", _ROOM_SECONDS),
        ):
            if not seconds:
                continue
            group = placement_group(
                [both] if config.share_gpu else [per_engine] * 2, strategy=strategy
            )
            if group.wait(seconds):
                return group
            remove_placement_group(group)
        have = ray.cluster_resources()
        raise EngineError(
            f"no room for a pair: it needs 2 x {per_engine}, the cluster has CPU"
            f" {have.get('CPU', 0):g}, GPU {have.get('GPU', 0):g}; give fewer --pairs or a smaller"
            " --tensor-parallel-size"
        )

    def _start_workers(self) -> None:
        config = self._config
        per_engine = float(config.tensor_parallel_size)
        for bundle, policy in enumerate(POLICIES):
            actor = ray.remote(self._worker_class).options(
                num_cpus=per_engine,
                num_gpus=config.gpus,
                max_restarts=0,
                runtime_env={"env_vars": self._environment(policy)},
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self._group, 0 if config.share_gpu else bundle
                ),
            )
            self.workers[policy] = actor.remote(config.workers[policy])
        self.places = {
            p: ray.get(w.place.remote(), timeout=_PLACING_SECONDS) for p, w in self.workers.items()
        }

    def _environment(self, policy: str) -> dict[str, str]:
        variables = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in the worker's process
            "VLLM_CONFIGURE_LOGGING": "0",  # its records go where ours do
            "VLLM_NO_USAGE_STATS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if cores := self._config.cores.get(policy):
            variables["VLLM_CPU_OMP_THREADS_BIND"] = cores
            variables["OMP_NUM_THREADS"] = str(len(cores.split("|")[0].split(",")))
        if not self._config.gpus:
            variables["CUDA_VISIBLE_DEVICES"] = ""  # --device cpu on a machine with GPUs
        return variables | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}

    def _load(self) -> int:
        kv = self._config.kv_cache_bytes
        free = [place.free_gpu_bytes for place in self.places.values() if place.free_gpu_bytes]
        if kv is None and free:
            kv = int(
                _KV_SHARE
                * (min(free) - self._config.weight_bytes)
                / (2 if self._config.share_gpu else 1)
            )
            if kv <= 0:
                raise EngineError(
                    f"{min(free)} bytes are free on a GPU, the weights need"
                    f" {self._config.weight_bytes}"
                )
        if self._config.share_gpu:  # each one measures what the other leaves
            blocks = [
                ray.get(worker.load.remote(kv), timeout=_LOADING_SECONDS)
                for worker in self.workers.values()
            ]
        else:
            blocks = ray.get(
                [worker.load.remote(kv) for worker in self.workers.values()],
                timeout=_LOADING_SECONDS,
            )
        if len(set(blocks)) > 1:
            raise EngineError(
                f"the engines have KV caches of different size ({blocks[0]} and {blocks[1]} blocks)"
                f" and would not stay in lock-step: give --num-kv-blocks {min(blocks)}"
            )
        return int(blocks[0])

    def _on_one_host(self) -> bool:
        base, rl = (self.places[policy] for policy in POLICIES)
        return base.node_id == rl.node_id

    def _rendezvous(self) -> str:
        """How the samplers meet: what was asked for, or what their places allow."""
        one_host = self._on_one_host()
        kind = {"auto": "shm" if one_host else "tcp"}.get(
            self._config.rendezvous, self._config.rendezvous
        )
        if kind == "shm" and not one_host:
            base, rl = (_address(self.places[policy]) for policy in POLICIES)
            raise EngineError(
                f"rendezvous is shm, but the engines are on {base} and {rl}: give auto or tcp"
            )
        return kind

    def _meet(self) -> None:
        opener, joiner = (self.workers[policy] for policy in POLICIES)
        host = "127.0.0.1" if self._on_one_host() else _address(self.places[POLICIES[0]])
        meetings = ray.get(
            opener.open.remote(self._rendezvous(), host), timeout=self._reply_timeout
        )
        ray.get(
            [opener.accept.remote(), joiner.connect.remote(meetings)], timeout=self._reply_timeout
        )

    @property
    def _reply_timeout(self) -> float:
        """Seconds. The twin of a dead or stalled engine notices first, with a better message: give
        it the time to.
        """
        return self._config.workers[POLICIES[0]].step_timeout + _GRACE_SECONDS

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Ray's errors as ours."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, ray.exceptions.RayError) and type(error) is not Exception:
                raise  # a plain Exception is a placement group's, whose cluster has died
            log = self._config.workers[POLICIES[0]].log
            raise _as_engine_error(
                error, f"; its logs are in {log.folder}" if log else ""
            ) from None

    def stream(
        self, work: Mapping[str, tuple[Phase, Requests]]
    ) -> Iterator[tuple[str, Finished | Progress]]:
        """Run a phase on each policy of `work`; their messages as they come. A long silence is an
        error.
        """
        with self._errors():
            yield from self._stream(work)

    def _stream(
        self, work: Mapping[str, tuple[Phase, Requests]]
    ) -> Iterator[tuple[str, Finished | Progress]]:
        pending = {
            self.workers[policy].run.options(num_returns="streaming").remote(*phase): policy
            for policy, phase in work.items()
        }
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=self._reply_timeout)
            if not ready:
                raise LockstepError(
                    f"no engine of the pair has said anything for {self._reply_timeout:g} s"
                    " (step_timeout)"
                )
            try:
                reference = next(ready[0])
            except StopIteration:
                del pending[ready[0]]
                continue
            yield pending[ready[0]], ray.get(reference)

    def kill(self) -> None:
        """End both engines now, whatever they are doing, and give their place back."""
        if (
            not ray.is_initialized()
        ):  # they ended with their cluster, and asking Ray would start another
            self.workers, self.places, self._group = {}, {}, None
        self._note_processes()
        if lost():  # asking Ray would take a minute
            self.workers, self._group = {}, None
        if self._config.tensor_parallel_size > 1 and self.workers:
            with suppress(Exception):  # a dead or busy engine does not answer
                closing = [worker.close.remote() for worker in list(self.workers.values())]
                ray.wait(closing, num_returns=len(closing), timeout=_CLOSING_SECONDS)
        for worker in list(self.workers.values()):
            with suppress(Exception):  # the cluster itself may be gone
                ray.kill(worker)
        for process in self._processes:  # a stopped process does not hear Ray
            with suppress(psutil.Error):
                process.kill()
        for file in self._shared_memory:
            with suppress(OSError):
                file.unlink()
        for policy, place in self.places.items():
            if log := self._config.workers[policy].log:
                remove_if_empty(log, place.pid)
        group, self._group = self._group, None
        self.workers, self.places = {}, {}
        self._processes, self._shared_memory = [], set()
        if group:
            _give_back(group)

    def _note_processes(self) -> None:
        """Note the processes of the engines on this host, and the shared memory that vLLM's ranks
        leave when killed.
        """
        if not self.places:
            return
        with suppress(Exception):  # Ray or a process may be gone; then what was seen before counts
            here = ray.get_runtime_context().get_node_id()
            for place in [place for place in list(self.places.values()) if place.node_id == here]:
                worker = psutil.Process(place.pid)
                tree = [worker, *worker.children(recursive=True)]
                self._processes += [process for process in tree if process not in self._processes]
                files = {Path(each.path) for process in tree for each in process.memory_maps()}
                self._shared_memory |= {
                    file for file in files if any(map(file.match, _VLLM_SHARED_MEMORY))
                }


def _give_back(group: PlacementGroup) -> None:
    """Ray waits a minute for a GCS that died a moment ago; what is not given back here goes with
    the driver's job.
    """

    def remove() -> None:
        with suppress(Exception):
            remove_placement_group(group)

    thread = threading.Thread(target=remove, daemon=True)
    thread.start()
    thread.join(_GIVING_BACK_SECONDS)


def _address(place: Place) -> str:
    """Address of the worker's node, as the cluster knows it."""
    return next(
        str(node["NodeManagerAddress"]) for node in ray.nodes() if node["NodeID"] == place.node_id
    )


def _as_engine_error(error: Exception, logs: str) -> EngineError:
    """Ray's error as one of ours: the cause's own words, on one line. logs: where more is said of
    it.
    """
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, EngineError):
        return type(cause)(str(cause))
    if (
        isinstance(cause, MemoryError | ray.exceptions.OutOfMemoryError)
        or "out of memory" in str(cause).lower()
    ):
        return LostEngineError(
            f"an engine ran out of memory: {_first_line(cause)}; {_LESS_MEMORY}{logs}"
        )
    if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
        return LostEngineError(f"an engine's process died: {_first_line(error)}{logs}")
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return LostEngineError(f"an engine did not answer in time{logs}")
    return EngineError(f"an engine failed: {type(cause).__name__}: {_first_line(cause)}{logs}")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
