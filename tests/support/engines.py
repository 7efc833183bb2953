"""What the end-to-end tests share: real engines of the embedded pair, one work list, and what it
gives undisturbed.

Starting engines takes most of the time of these tests. One pair is therefore kept up between them,
for whoever wants the same engines; what the engines do (rule, budgets, prompts, samples) is said
anew with every lease.
"""

from __future__ import annotations

import atexit
import fcntl
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray

from engine.core import POLICIES, TRAJECTORY_KEY, Trajectory
from engine.errors import EngineError
from engine.lockstep.engine_pair import PairConfig
from engine.lockstep.job import Job
from engine.lockstep.kv_cache import KvCacheNeeds
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.lockstep.worker import Decided, PolicyWorker
from engine.run.execute import execute
from engine.run.hosting import Hosting, hosted_by
from engine.run.placement import ray_cluster
from engine.run.plan import Plan, prepare
from engine.run.rows import token_rows
from engine.run.settings import load
from engine.sampling.distribution import Sampling
from engine.sampling.rule import Rule
from engine.sampling.sampler import SamplerConfig
from engine.store.run_store import RunStore
from engine.store.schema import TOKENS
from engine.system.display import PlainDisplay
from evaluators.grading.grader import Grader
from evaluators.tasks.registry import load_task

# `make test-v2` says so: vLLM takes its model runner V2, whose kernels a CPU has to interpret.
ON_V2 = os.environ.get("VLLM_USE_V2_MODEL_RUNNER") == "1"

Either = TypeVar("Either")


def less_on_v2(all_of_it: Either, less: Either) -> Either:
    """What a test carries out: less of it where a step takes a hundred times as long."""
    return less if ON_V2 else all_of_it


# The whole work list; every test's own list is a part of it, so one run says what each of them must
# give.
WHOLE: dict[str, Any] = {"direction": "both", "budget": (0, 1, 4, None)} | less_on_v2(
    {"limit": 16, "samples": 4}, {"limit": 4, "samples": 2, "max_tokens": 48}
)
NUM_SEEDS = WHOLE["limit"] * WHOLE["samples"]
"""Trajectories of each of its arms."""
# The engines of most tests. What they depend on beside the models is given, so that runs of other
# prompts share them. On V2 they are so narrow that prompts come in chunks beside the others' next
# tokens, and that slots are used again and again.
ENGINES: dict[str, Any] = {
    "device": "cpu", "dtype": "float32", "max_model_len": 256, "kv_cache_gib": 0.25,
} | less_on_v2(
    {"step_timeout": 60, "max_num_seqs": 64},
    {"step_timeout": 120, "max_num_seqs": 6, "max_num_batched_tokens": 20},
)  # fmt: skip
OPTIONS = [
    text for name, value in ENGINES.items() for text in (f"--{name.replace('_', '-')}", str(value))
]
TOLERANCE = 1e-5  # batches of different shape add up in a different order

# Ray's processes cannot import a test's module: what is defined here travels by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def plan_of(**settings: Any) -> Plan:
    """A plan for the embedded pair in float32 on the CPU: the whole work list, unless `settings`
    say otherwise.
    """
    config = load(None, WHOLE | ENGINES | settings)
    return prepare(config, load_task(config))


def complete(plan: Plan) -> RunStore:
    """The plan carried out as the command does it, without its output, by the pair that is kept."""
    with on_kept_engines(), Grader(plan.problems, plan.grader) as grader:
        return execute(plan, grader, PlainDisplay(io.StringIO()))


def undisturbed(temporary: pytest.TempPathFactory) -> RunStore:
    """The whole work list, carried out once a session; processes that share it wait for each
    other.
    """
    folder = temporary.getbasetemp()
    return _undisturbed(folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder)


@cache
def _undisturbed(folder: Path) -> RunStore:
    out = folder / "undisturbed"
    with (folder / "undisturbed.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (out / "grades.parquet").exists():
            return RunStore.read(out)
        return complete(plan_of(out=str(out)))


class OpenWorker(PolicyWorker):
    """A worker that lets a test into its process."""

    def do(self, what: Callable[..., Any], *arguments: Any) -> Any:
        """what(worker, *arguments), there."""
        return what(self, *arguments)

    @property
    def engine(self) -> Any:
        """vLLM's engine."""
        return self._engine

    @property
    def adapter(self) -> str:
        """The class that vLLM has made for its batches; only the runner that it is for can."""
        [name] = self.engine.vllm_config.model_config.logits_processors
        return str(name).split(":")[1]


class OpenPair(LeaseRunner):
    """Two open workers."""

    def __init__(self, config: PairConfig) -> None:
        super().__init__(config, OpenWorker)

    def start(self, tell: Callable[[str], object] = lambda line: None) -> str:
        line = super().start(tell)
        if ON_V2:
            for policy in POLICIES:
                assert self.do(policy, lambda worker: worker.adapter) == "CrossSamplingV2"
        self.configure()
        self.ready()
        return line

    def configure(self) -> None:
        """Called after every start, before `ready`."""

    def ready(self) -> None:
        """Called after every start; for what a test does to its engines."""

    def do(self, policy: str, what: Callable[..., Any], *arguments: Any) -> Any:
        """what(worker, *arguments) in the process of one policy's worker."""
        return ray.get(self.engines.workers[policy].do.remote(what, *arguments))


class KeptPair(OpenPair):
    """A pair whose engines outlive a run: only a failure kills them, or `end`.

    It remembers how it failed.
    """

    def __init__(self, config: PairConfig) -> None:
        super().__init__(config)
        self.config = config
        """What is asked for now; the settings of the samplers may differ from the first."""
        self.failures: list[EngineError] = []
        self.num_starts = 0
        self._started_with = _samplers(config)
        self._configured = self._started_with
        self._is_up = False

    def start(self, tell: Callable[[str], object] = lambda line: None) -> str:
        if self._is_up:
            self.configure()
            self.ready()
            return "up"
        self.num_starts += 1
        self._configured = self._started_with
        line = super().start(tell)
        self._is_up = True
        return line

    def configure(self) -> None:
        wanted = _samplers(self.config)
        for policy, sampler in wanted.items():
            if sampler != self._configured[policy]:
                self.do(policy, PolicyWorker.configure, sampler)
        self._configured = wanted

    def kill(self) -> None:
        if not self._is_up:
            super().kill()

    def end(self) -> None:
        self._is_up = False
        self.kill()

    def run(self, jobs: Sequence[Job], rule: Rule) -> Iterator[Completed | Decided]:
        whole = False
        try:
            yield from super().run(jobs, rule)
            whole = True
        except EngineError as error:
            self.failures.append(error)
            raise
        finally:
            self._is_up = whole


_cluster = ExitStack()
atexit.register(_cluster.close)  # before Ray, and before nothing can be imported any more
_kept: KeptPair | None = None


def connect() -> None:
    """Be in a Ray cluster with room for two pairs beside the one that is kept.

    It stays for the tests that follow.
    """
    if not ray.is_initialized():
        end_kept_pair()
        _cluster.close()  # one that was shut down
        _cluster.enter_context(ray_cluster(plan_of(pairs=3)))


def kept_pair(config: PairConfig) -> KeptPair:
    """The pair that is kept if it has this configuration, else another in its place.

    It is to be started, and has no failures yet.
    """
    global _kept
    connect()
    if _kept is None or _engines(_kept.config) != _engines(config):
        end_kept_pair()
        _kept = KeptPair(config)
    _kept.config = config
    _kept.failures.clear()
    return _kept


def _samplers(config: PairConfig) -> dict[str, SamplerConfig]:
    return {policy: worker.sampler for policy, worker in config.workers.items()}


def _engines(config: PairConfig) -> PairConfig:
    """A configuration without what running engines need not be started anew for.

    That is the settings of the samplers, and what the size of the KV cache would follow from if it
    were not given.
    """
    any_sampler = SamplerConfig("", 0, Sampling(1.0, 1.0), 0.0, 0)
    workers = {
        policy: replace(worker, sampler=any_sampler) for policy, worker in config.workers.items()
    }
    return replace(config, workers=workers, kv_cache_needs=KvCacheNeeds(0, 0, 0))


def end_kept_pair() -> None:
    """End the engines of the pair that is kept; the next test starts its own."""
    global _kept
    if _kept is not None:
        _kept.end()
    _kept = None


@contextmanager
def on_kept_engines(pair_class: Callable[[PairConfig], LeaseRunner] = kept_pair) -> Iterator[None]:
    """Runs in this block are carried out by the pair that is kept, in the cluster that is there."""
    connect()
    with hosted_by(Hosting(pair_class, lambda plan: nullcontext())):
        yield


def carry_out(pair: LeaseRunner, plan: Plan) -> pa.Table:
    """All of the plan's trajectories as one lease; their rows as on disk."""
    keys = list(plan.work.trajectories())
    jobs = [plan.work.job(key) for key in keys]
    done = [event for event in pair.run(jobs, plan.rule) if isinstance(event, Completed)]
    return pa.concat_tables([token_rows(completed.tokens, keys) for completed in done])


def of_plan(store: RunStore, plan: Plan) -> pa.Table:
    """The rows that `store` has of the plan's trajectories."""
    return of_keys(store.tokens().to_table(), plan.work.trajectories())


def of_keys(rows: pa.Table, keys: Iterable[Trajectory]) -> pa.Table:
    """Those of `rows` that belong to the trajectories `keys`."""
    wanted = set(keys)
    return rows.filter(pa.array([key in wanted for key in keys_of(rows)], pa.bool_()))


def keys_of(rows: pa.Table) -> list[Trajectory]:
    """The trajectory of each row."""
    return list(map(Trajectory, *(rows[name].to_pylist() for name in TRAJECTORY_KEY)))


def assert_same(rows: pa.Table, expected: pa.Table) -> None:
    """The same trajectories, token for token, each once; every column equal, floats to TOLERANCE,
    null where null.
    """
    order = [(name, "ascending") for name in (*TRAJECTORY_KEY, "position")]
    rows, expected = rows.sort_by(order), expected.sort_by(order)
    assert set(keys_of(rows)) == set(keys_of(expected))
    tokens, expected_tokens = responses_of(rows), responses_of(expected)
    assert not [key for key, response in tokens.items() if response != expected_tokens[key]], (
        "tokens differ"
    )
    for field in TOKENS:
        ours, theirs = rows[field.name], expected[field.name]
        if pa.types.is_floating(field.type):
            assert ours.is_null().equals(theirs.is_null()), field.name
            np.testing.assert_allclose(
                floats(ours), floats(theirs), rtol=0, atol=TOLERANCE, err_msg=field.name
            )
        else:
            assert ours.combine_chunks().equals(theirs.combine_chunks()), field.name


def responses_of(rows: pa.Table) -> dict[Trajectory, list[int]]:
    """The token ids of each trajectory in the order of its rows."""
    responses: dict[Trajectory, list[int]] = {}
    for key, token in zip(keys_of(rows), rows["token"].to_pylist(), strict=True):
        responses.setdefault(key, []).append(token)
    return responses


def floats(column: pa.ChunkedArray | Sequence[float | None]) -> Any:
    """A column as float64, null as NaN."""
    column = (
        column
        if isinstance(column, pa.ChunkedArray)
        else pa.chunked_array([pa.array(column, pa.float64())])
    )
    return pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
