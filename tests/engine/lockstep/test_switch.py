"""An idle engine with its twin's weights makes the tokens of its twin, and never those of wrong
weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray

from engine.core import POLICIES
from engine.errors import EngineError
from engine.lockstep.forecast import Forecast
from engine.models.pair_info import TINY_PAIR
from engine.run.placement import pair_config
from engine.run.plan import Plan
from engine.run.rows import token_rows
from engine.run.scheduler import Done, Note, Scheduler
from engine.store.run_store import RunStore
from tests.support.engines import (
    KeptPair,
    assert_same,
    carry_out,
    connect,
    less_on_v2,
    of_plan,
    plan_of,
    undisturbed,
)

# Ray's processes cannot import a test's module: what is defined here travels by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.v2

# Many more tails than slots, all of one direction: the other engine would be idle.
PART: dict[str, Any] = {"direction": "reverse", "budget": (1,), "max_num_seqs": 4}


class HelpfulPair(KeptPair):
    """A pair that has seen that a switch always pays."""

    fault: Callable[..., None] | None = None
    """What the base engine does instead of loading the weights of RL, until its next start."""

    def ready(self) -> None:
        self._forecast = Forecast(switch_seconds=0.0)
        self._forecast.note_tokens(1000, 1.0)
        fault, self.fault = self.fault, None
        self.do("base", spoil, fault, "rl")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return plan_of(**PART)


@pytest.fixture(scope="module")
def pair(plan: Plan) -> Iterator[HelpfulPair]:
    """One pair for all tests; a fault in a lease ends its engines, and they are started anew."""
    connect()
    pair = HelpfulPair(pair_config(plan, 0))
    yield pair
    pair.end()


@pytest.fixture
def running(pair: HelpfulPair) -> HelpfulPair:
    """The pair with whole engines, which may switch."""
    pair.start()
    pair.engines.may_switch = True
    return pair


def count_requests(worker: Any) -> None:
    """Count the sequences that the worker's engine gets from now on."""
    worker.num_requests, add = 0, worker.engine.add_request

    def counted(name: str, *arguments: Any) -> None:
        worker.num_requests += name.isdecimal()
        add(name, *arguments)

    worker.engine.add_request = counted


def test_both_engines_carry_the_primary_and_give_its_tokens(
    running: HelpfulPair, plan: Plan, store: RunStore
) -> None:
    for policy in POLICIES:
        running.do(policy, count_requests)
    for _ in range(2):  # the second lease begins with weights that were given back
        assert_same(carry_out(running, plan), of_plan(store, plan))
    num_stems = num_tails = 2 * len(list(plan.work.trajectories()))
    helped, own = (
        running.do(policy, lambda worker: worker.num_requests) - num_stems for policy in POLICIES
    )
    assert helped + own == num_tails
    assert min(helped, own) > less_on_v2(num_tails // 5, 0)  # there they are few
    running.engines.switch_back()
    assert running.engines.holds == {policy: policy for policy in POLICIES}


def fail(load: Callable[..., None], target: Path) -> None:
    raise RuntimeError("the file system is gone")


def load_the_wrong_folder(load: Callable[..., None], target: Path) -> None:
    wrong = TINY_PAIR / ("base" if target.name == "rl" else "rl")
    load(weights_path=str(wrong))


def load_half(load: Callable[..., None], target: Path) -> None:
    """Half of the tensors of the target, the others of the other model."""
    from safetensors.torch import load_file

    wrong = TINY_PAIR / ("base" if target.name == "rl" else "rl")
    right, other = (load_file(folder / "model.safetensors") for folder in (target, wrong))
    names = sorted(right)
    mixed = {name: (right if n < len(names) // 2 else other)[name] for n, name in enumerate(names)}
    load(weights_iterator=iter(mixed.items()))


def leave_out_the_last(load: Callable[..., None], target: Path) -> None:
    """All but one tensor, which keeps what it had."""
    from safetensors.torch import load_file

    wrong = TINY_PAIR / ("base" if target.name == "rl" else "rl")
    name = sorted(load_file(target / "model.safetensors"))[-1]
    own = load_file(wrong / "model.safetensors")[name]
    load(weights_iterator=iter((load_file(target / "model.safetensors") | {name: own}).items()))


def spoil(worker: Any, fault: Callable[..., None] | None, target: str) -> None:
    """Do `fault` where the weights of the policy `target` are loaded; None mends it."""
    core = worker.engine.engine_core.engine_core
    runner = core.model_executor.driver_worker.worker.model_runner
    load = type(runner).reload_weights.__get__(runner)

    def spoilt(weights_path: str) -> None:
        if fault and Path(weights_path).name == target:
            fault(load, Path(weights_path))
        else:
            load(weights_path=weights_path)

    runner.reload_weights = spoilt


@pytest.mark.parametrize("fault", [load_the_wrong_folder, load_half, leave_out_the_last])
def test_an_engine_with_wrong_weights_gets_its_own_back_and_gives_no_row(
    running: HelpfulPair, plan: Plan, store: RunStore, fault: Any
) -> None:
    running.do("base", spoil, fault, "rl")
    assert_same(carry_out(running, plan), of_plan(store, plan))
    assert not running.engines.may_switch
    running.engines.switch_back()
    assert running.engines.holds == {policy: policy for policy in POLICIES}


def test_a_switch_that_fails_gives_no_row_and_is_not_tried_again(
    running: HelpfulPair, plan: Plan, store: RunStore
) -> None:
    running.fault = fail
    keys = list(plan.work.trajectories())
    jobs = [plan.work.job(key) for key in keys]
    scheduler = Scheduler([running], jobs, plan.rule, plan.num_slots)
    rows, notes = [], []
    try:
        for event in scheduler.events():
            if isinstance(event, Done):
                rows.append(token_rows(event.completed.tokens, [keys[job] for job in event.jobs]))
            elif isinstance(event, Note):
                notes.append(event.text)
    finally:
        scheduler.close()
    [failure] = [note for note in notes if "failed" in note]
    assert "the file system is gone" in failure
    assert_same(pa.concat_tables(rows), of_plan(store, plan))
    assert not running.engines.may_switch


def test_a_way_back_that_goes_wrong_gives_no_paired_phase(
    running: HelpfulPair, plan: Plan, store: RunStore
) -> None:
    running.do("base", spoil, load_the_wrong_folder, "base")
    # In the first lease, where base is done before RL, else before the next paired phase.
    with pytest.raises(EngineError, match="base has other weights than when it was started"):
        for _ in range(2):
            assert_same(carry_out(running, plan), of_plan(store, plan))


def test_models_that_compute_otherwise_are_not_exchanged() -> None:
    assert pair_config(plan_of(), 0).idle_helps
    assert not pair_config(plan_of(idle_helps=False), 0).idle_helps
    other = plan_of(rl_engine_arg=("load_format=safetensors",))
    assert not pair_config(other, 0).idle_helps
