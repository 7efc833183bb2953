"""What the end-to-end tests share: real engines of the embedded pair, one work list, and what it gives undisturbed."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray

from engine.config import load
from engine.display import PlainDisplay
from engine.join import token_rows
from engine.pair import Completed, Pair
from engine.plan import Plan, prepare
from engine.record import TOKENS, TRAJECTORY_KEY, Trajectory
from engine.run import execute
from engine.store import RunStore
from evaluators.grading.grader import Grader
from evaluators.tasks.registry import load_task

ROOT = Path(__file__).parents[1]
# The whole work list; every test's own list is a part of it, so one run says what each of them must give.
WHOLE: dict[str, Any] = {"limit": 16, "samples": 4, "direction": "both", "budget": (0, 1, 4, None)}
_cluster = ExitStack()
TOLERANCE = 1e-5  # batches of different shape add up in a different order


def plan_of(**settings: Any) -> Plan:
    """A plan for the embedded pair in float32 on the CPU: the whole work list, unless `settings` say otherwise."""
    config = load(None, WHOLE | {"device": "cpu", "dtype": "float32"} | settings)
    return prepare(config, load_task(config))


def complete(plan: Plan) -> RunStore:
    """The plan carried out as the command does it, without its output."""
    ray.shutdown()  # execute starts a cluster of its own
    with Grader(plan.problems) as grader:
        return execute(plan, grader, PlainDisplay(io.StringIO()))


def undisturbed(temporary: pytest.TempPathFactory) -> RunStore:
    """The whole work list, carried out once a session."""
    return _undisturbed(temporary.getbasetemp())


@cache
def _undisturbed(folder: Path) -> RunStore:
    return complete(plan_of(out=tempfile.mkdtemp(dir=folder)))


def connect() -> None:
    """Be in a Ray cluster with room for two pairs; it stays for the tests that follow."""
    if not ray.is_initialized():
        _cluster.pop_all()  # one that was shut down
        _cluster.enter_context(plan_of(pairs=2).cluster())


@contextmanager
def started(pair: Pair) -> Iterator[Pair]:
    """A pair that is up, for this block."""
    connect()
    try:
        pair.start()
        yield pair
    finally:
        pair.kill()


def carry_out(pair: Pair, plan: Plan) -> pa.Table:
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
    """The same trajectories, token for token, each once; every column equal, floats to TOLERANCE, null where null."""
    order = [(name, "ascending") for name in (*TRAJECTORY_KEY, "position")]
    rows, expected = rows.sort_by(order), expected.sort_by(order)
    assert set(keys_of(rows)) == set(keys_of(expected))
    tokens, expected_tokens = responses_of(rows), responses_of(expected)
    assert not [key for key, response in tokens.items() if response != expected_tokens[key]], "tokens differ"
    for field in TOKENS:
        ours, theirs = rows[field.name], expected[field.name]
        if pa.types.is_floating(field.type):
            assert ours.is_null().equals(theirs.is_null()), field.name
            np.testing.assert_allclose(floats(ours), floats(theirs), rtol=0, atol=TOLERANCE, err_msg=field.name)
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
    column = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([pa.array(column, pa.float64())])
    return pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()


def comes_true(within: float, condition: Callable[[], bool]) -> bool:
    """Whether `condition()` becomes true in the next `within` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def is_alive(process: psutil.Process) -> bool:
    """Whether it still runs; one that has ended and was not yet waited for does not."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
