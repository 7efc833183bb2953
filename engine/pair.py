"""Pair: two PolicyWorkers in lock-step, as two Ray actors; takes a lease of trajectories, gives back finished ones.

A lease is run in two stages, which never share a phase of an engine: first the paired phase carries every trajectory
that may intervene; then each engine alone continues those of its direction whose budget is spent (budget 0: from the
start). Anything that goes wrong is an EngineError; the pair is then killed and started anew by the scheduler.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from engine.errors import EngineError, LockstepError
from engine.intervention import UNLIMITED
from engine.join import join_sides, lengths, rows_of
from engine.sampler import Phase
from engine.worker import Finished, Place, PolicyWorker, Progress, Requests, WorkerConfig

POLICIES = ("base", "rl")
# Share of a GPU's free memory, less the weights, that the KV cache gets: activations and CUDA graphs need the rest.
_KV_SHARE = 0.8
_LOADING_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class PairConfig:
    """How to start a pair.

    workers: policy -> its engine. weight_bytes: of all that shares a device. kv_cache_bytes: an engine and device;
    None: by the free GPU memory, or (with num_gpu_blocks_override in engine_args) not at all. cores: OpenMP binding
    of each policy, CPU only, in vLLM's notation.
    """

    workers: Mapping[str, WorkerConfig]
    gpus: float
    tensor_parallel_size: int
    share_gpu: bool
    weight_bytes: int
    kv_cache_bytes: int | None
    fixed_blocks: bool
    rendezvous: str
    cores: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Job:
    """One trajectory to be made: prompt token ids, noise key, direction, budget (None: unlimited), most tokens."""

    prompt: list[int]
    noise_key: int
    forward: bool
    budget: int | None
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Completed:
    """Finished jobs of a lease. job [F] ascending; stopped [F], else cut at max_tokens; tokens: their joined rows,
    `sequence` indexes the lease."""

    job: npt.NDArray[np.int64]
    stopped: npt.NDArray[np.bool_]
    tokens: pa.Table


class Pair:
    """Two engines. `start`, then `run` leases one after the other; `kill` always, also after an error.

    worker_class: what hosts an engine; benchmarks put a stopwatch into it, tests a fault.
    """

    def __init__(self, config: PairConfig, worker_class: type[PolicyWorker] = PolicyWorker) -> None:
        self._config, self._worker_class = config, worker_class
        self._workers: dict[str, Any] = {}
        self._places: dict[str, Place] = {}
        self._group: PlacementGroup | None = None

    def start(self) -> str:
        """Place, load and introduce the two engines. Returns a line that says where. Raises EngineError."""
        try:
            self._place()
            blocks = self._load()
            kind = self._meet()
        except ray.exceptions.RayError as error:
            raise _engine_error(error) from None
        hosts = " and ".join(sorted({_address(place) for place in self._places.values()}))
        return f"pair on {hosts}, {kind} rendezvous, {blocks} KV blocks an engine"

    def _place(self) -> None:
        config = self._config
        per_engine = {"CPU": float(config.tensor_parallel_size)} | ({"GPU": config.gpus} if config.gpus else {})
        shared = {"CPU": 2 * per_engine["CPU"], "GPU": 2 * config.gpus}
        self._group = placement_group([shared] if config.share_gpu else [per_engine] * 2, strategy="PACK")
        if not self._group.wait(60):
            have = ray.cluster_resources()
            raise EngineError(
                f"no room for a pair: it needs 2 x {per_engine}, the cluster has CPU {have.get('CPU', 0):g}, "
                f"GPU {have.get('GPU', 0):g}; give fewer --pairs or a smaller --tensor-parallel-size"
            )
        for bundle, policy in enumerate(POLICIES):
            actor = ray.remote(self._worker_class).options(
                num_cpus=per_engine["CPU"],
                num_gpus=config.gpus,
                max_restarts=0,
                runtime_env={"env_vars": self._environment(policy)},
                scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, 0 if config.share_gpu else bundle),
            )
            self._workers[policy] = actor.remote(config.workers[policy])
        self._places = {p: ray.get(w.place.remote(), timeout=300) for p, w in self._workers.items()}

    def _environment(self, policy: str) -> dict[str, str]:
        variables = {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in the worker's process
            "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
            "VLLM_NO_USAGE_STATS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if cores := self._config.cores.get(policy):
            variables["VLLM_CPU_OMP_THREADS_BIND"] = cores
            variables["OMP_NUM_THREADS"] = str(len(cores.split("|")[0].split(",")))
        if os.environ.get("HF_HUB_OFFLINE"):
            variables["HF_HUB_OFFLINE"] = os.environ["HF_HUB_OFFLINE"]
        return variables

    def _load(self) -> int:
        kv = self._config.kv_cache_bytes
        free = [place.free_gpu_bytes for place in self._places.values() if place.free_gpu_bytes]
        if kv is None and not self._config.fixed_blocks and free:
            kv = int(_KV_SHARE * (min(free) - self._config.weight_bytes) / (2 if self._config.share_gpu else 1))
            if kv <= 0:
                raise EngineError(f"{min(free)} bytes are free on a GPU, the weights need {self._config.weight_bytes}")
        if self._config.share_gpu:  # each one measures what the other leaves
            blocks = [ray.get(worker.load.remote(kv), timeout=_LOADING_SECONDS) for worker in self._workers.values()]
        else:
            blocks = ray.get([worker.load.remote(kv) for worker in self._workers.values()], timeout=_LOADING_SECONDS)
        if len(set(blocks)) > 1:
            raise EngineError(
                f"the engines have KV caches of different size ({blocks[0]} and {blocks[1]} blocks) and would not stay "
                f"in lock-step: give --num-kv-blocks {min(blocks)}"
            )
        return int(blocks[0])

    def _meet(self) -> str:
        base, rl = (self._places[policy] for policy in POLICIES)
        one_host = base.node_id == rl.node_id
        kind = {"auto": "shm" if one_host else "tcp"}.get(self._config.rendezvous, self._config.rendezvous)
        if kind == "shm" and not one_host:
            raise EngineError(
                f"rendezvous is shm, but the engines are on {_address(base)} and {_address(rl)}: give auto or tcp"
            )
        opener, joiner = (self._workers[policy] for policy in POLICIES)
        meetings = ray.get(opener.open.remote(kind, "127.0.0.1" if one_host else _address(base)))
        ray.get([opener.accept.remote(), joiner.join.remote(meetings)])
        return kind

    def run(self, jobs: Sequence[Job]) -> Iterator[Completed | Progress]:
        """Run a lease to its end. Raises EngineError (LockstepError) at the first sign that something is wrong."""
        try:
            pieces: dict[int, pa.Table] = {}  # what a handed-back trajectory has so far
            paired = [index for index, job in enumerate(jobs) if job.budget != 0]
            if paired:
                yield from self._run_paired(jobs, paired, pieces)
            alone = [index for index, job in enumerate(jobs) if job.budget == 0 or index in pieces]
            yield from self._run_solo(jobs, sorted(alone), pieces)
        except ray.exceptions.RayError as error:
            raise _engine_error(error) from None

    def _run_paired(
        self, jobs: Sequence[Job], indices: list[int], pieces: dict[int, pa.Table]
    ) -> Iterator[Completed | Progress]:
        index_of = np.array(indices)
        phase, requests = self._phase([jobs[i] for i in indices], [[]] * len(indices), paired=True)
        waiting: dict[str, list[Finished]] = {policy: [] for policy in POLICIES}
        for policy, message in self._stream({policy: self._stream_of(policy, phase, requests) for policy in POLICIES}):
            if isinstance(message, Progress):
                if policy == "base":
                    yield message
                continue
            waiting[policy].append(message)
            if all(waiting.values()):
                base, rl = (waiting[p].pop(0) for p in POLICIES)
                finished, tokens = _renumber(base, join_sides(base.trace, rl.trace), index_of)
                yield _split(finished, tokens, pieces)

    def _run_solo(
        self, jobs: Sequence[Job], indices: list[int], pieces: dict[int, pa.Table]
    ) -> Iterator[Completed | Progress]:
        """Both directions' lists at once, each on its primary's engine."""
        streams, index_of = {}, {}
        for policy in POLICIES:
            mine = [i for i in indices if jobs[i].forward == (policy == "base")]
            if not mine:
                continue
            prefixes = [pieces[i].column("token").to_pylist() if i in pieces else [] for i in mine]
            phase, requests = self._phase([jobs[i] for i in mine], prefixes, paired=False)
            streams[policy] = self._stream_of(policy, phase, requests)
            index_of[policy] = np.array(mine)
        for policy, message in self._stream(streams):
            if isinstance(message, Progress):
                yield message
                continue
            sides = (message.trace, None) if policy == "base" else (None, message.trace)
            finished, tokens = _renumber(message, join_sides(*sides), index_of[policy])
            whole = []
            for index in map(int, finished.sequence):
                whole += [pieces.pop(index)] if index in pieces else []
                whole.append(rows_of(tokens, index))
            yield Completed(finished.sequence, finished.stopped, pa.concat_tables(whole))

    def _stream_of(self, policy: str, phase: Phase, requests: Requests) -> Any:
        return self._workers[policy].run.options(num_returns="streaming").remote(phase, requests)

    def _phase(self, jobs: Sequence[Job], prefixes: Sequence[list[int]], paired: bool) -> tuple[Phase, Requests]:
        offset = np.array([len(prefix) for prefix in prefixes], np.int64)
        phase = Phase(
            paired=paired,
            key=np.array([job.noise_key for job in jobs], np.uint64),
            forward=np.array([job.forward for job in jobs], np.bool_),
            budget=np.array([UNLIMITED if job.budget is None else job.budget for job in jobs], np.int64),
            offset=offset,
            stop_token=self._config.workers["base"].stop_token_ids[0],
        )
        prompts = [job.prompt + prefix for job, prefix in zip(jobs, prefixes, strict=True)]
        return phase, Requests(prompts, [job.max_tokens - int(o) for job, o in zip(jobs, offset, strict=True)])

    def _stream(self, streams: Mapping[str, Any]) -> Iterator[tuple[str, Finished | Progress]]:
        """Messages of the workers as they come. A silence longer than the deadline is an error."""
        pending = {stream: policy for policy, stream in streams.items()}
        timeout = self._config.workers["base"].step_timeout
        while pending:
            # The twin of a dead or stalled engine notices first, with a better message: give it the time to.
            ready, _ = ray.wait(list(pending), num_returns=1, timeout=timeout + 30)
            if not ready:
                raise LockstepError(f"no engine of the pair has said anything for {timeout + 30:g} s (step_timeout)")
            try:
                reference = next(ready[0])
            except StopIteration:
                del pending[ready[0]]
                continue
            yield pending[ready[0]], ray.get(reference)

    def kill(self) -> None:
        """End both engines now, whatever they are doing, and give their place back."""
        for policy, worker in self._workers.items():
            with suppress(Exception):  # the cluster itself may be gone
                ray.kill(worker)
            place = self._places.get(policy)
            with suppress(Exception):  # a stopped process does not hear Ray, and Ray may be gone
                if place and place.node_id == ray.get_runtime_context().get_node_id():
                    os.kill(place.pid, signal.SIGKILL)
        if self._group:
            with suppress(Exception):
                remove_placement_group(self._group)
        self._workers, self._places, self._group = {}, {}, None


def _address(place: Place) -> str:
    """Address of the worker's node, as the cluster knows it."""
    return next(str(node["NodeManagerAddress"]) for node in ray.nodes() if node["NodeID"] == place.node_id)


def _renumber(finished: Finished, tokens: pa.Table, index_of: npt.NDArray[np.int64]) -> tuple[Finished, pa.Table]:
    """From numbers of the phase to numbers of the lease (which rise with them), in rising order."""
    order = np.argsort(finished.sequence)
    sequence = index_of[finished.sequence[order]]
    column = pa.array(index_of[tokens.column("sequence").to_numpy()].astype(np.int32))
    renumbered = replace(finished, sequence=sequence, emitted=finished.emitted[order], stopped=finished.stopped[order])
    return renumbered, tokens.set_column(0, "sequence", column)


def _split(finished: Finished, tokens: pa.Table, pieces: dict[int, pa.Table]) -> Completed:
    """Keep what was handed back (its stop token has no row) in `pieces`; the rest is complete."""
    handed_back = finished.emitted > lengths(tokens, finished.sequence)
    for index in finished.sequence[handed_back]:
        pieces[int(index)] = rows_of(tokens, int(index))
    complete = finished.sequence[~handed_back]
    mine = np.isin(tokens.column("sequence").to_numpy(), complete)
    return Completed(complete, finished.stopped[~handed_back], tokens.filter(pa.array(mine)))


def _engine_error(error: Exception) -> EngineError:
    """Ray's error as one of ours: the cause's own words, on one line."""
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, EngineError):
        return type(cause)(str(cause))
    if isinstance(error, ray.exceptions.ActorDiedError | ray.exceptions.ActorUnavailableError):
        return EngineError(f"an engine's process died: {_first_line(error)}")
    return EngineError(f"an engine failed: {type(cause).__name__}: {_first_line(cause)}")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
