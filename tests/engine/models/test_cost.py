"""What a run costs: more work never costs less, and more devices never cost more time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core import POLICIES, Problem, Task
from engine.models.cost import Amount, rough_duration, run_seconds
from engine.models.devices import cpu, gpu
from engine.models.roofline import Device, EngineLoad, PairRoofline
from engine.run.plan import Plan, prepare
from engine.run.settings import load

positive = st.floats(1e-3, 1e3)
numbers = st.integers(0, 500)
devices = st.builds(
    Device,
    name=st.just("device"),
    bandwidth=st.floats(1e9, 1e13),
    flops=st.floats(1e9, 1e15),
    step_seconds=st.floats(0, 0.01),
    row_seconds=st.floats(0, 1e-3),
)
loads = st.builds(EngineLoad, st.floats(1e6, 1e11), st.floats(1e2, 1e6), st.floats(1e6, 1e11))
rooflines = st.builds(
    PairRoofline, st.fixed_dictionaries({"base": loads, "rl": loads}), devices, st.booleans()
)
amounts = st.builds(
    Amount,
    num_paired=numbers,
    num_solo=st.fixed_dictionaries({"base": numbers, "rl": numbers}),
    prompt_tokens=st.integers(1, 2000),
    length=st.floats(1, 8000),
    is_limit=st.booleans(),
)
slots, pairs = st.integers(1, 128), st.integers(1, 8)
ALLOWANCE = 1 + 1e-9  # of floating point


@given(rooflines, amounts, slots, pairs, st.floats(1, 10))
def test_longer_responses_cost_more(
    roofline: PairRoofline, amount: Amount, slots: int, pairs: int, factor: float
) -> None:
    longer = replace(amount, length=amount.length * factor)
    shorter_s = run_seconds(roofline, amount, slots, pairs)
    assert 0 <= shorter_s <= run_seconds(roofline, longer, slots, pairs) * ALLOWANCE


@given(rooflines, amounts, slots, pairs, numbers)
def test_more_responses_cost_more(
    roofline: PairRoofline, amount: Amount, slots: int, pairs: int, more: int
) -> None:
    larger = replace(amount, num_paired=amount.num_paired + more)
    smaller_s = run_seconds(roofline, amount, slots, pairs)
    assert smaller_s <= run_seconds(roofline, larger, slots, pairs) * ALLOWANCE


@given(rooflines, amounts, slots, pairs, st.floats(1, 10))
def test_larger_models_cost_more(
    roofline: PairRoofline, amount: Amount, slots: int, pairs: int, factor: float
) -> None:
    base = roofline.loads["base"]
    larger = replace(
        base,
        weight_bytes=base.weight_bytes * factor,
        token_flops=base.token_flops * factor,
        kv_token_bytes=base.kv_token_bytes * factor,
    )
    with_larger = replace(roofline, loads={**roofline.loads, "base": larger})
    smaller_s = run_seconds(roofline, amount, slots, pairs)
    assert smaller_s <= run_seconds(with_larger, amount, slots, pairs) * ALLOWANCE


@given(rooflines, amounts, slots, pairs, st.integers(1, 8))
def test_more_pairs_cost_no_more_time(
    roofline: PairRoofline, amount: Amount, slots: int, pairs: int, more: int
) -> None:
    few = run_seconds(roofline, amount, slots, pairs)
    assert run_seconds(roofline, amount, slots, pairs + more) <= few * ALLOWANCE


@given(loads, devices, st.integers(1, 16), st.floats(1, 256), st.floats(0, 10_000))
def test_tensor_parallel_devices_divide_what_is_read_and_computed(
    load: EngineLoad, device: Device, ranks: int, rows: float, context: float
) -> None:
    whole = load.decode_seconds(device, rows, context)
    assert load.divided(ranks).decode_seconds(device, rows, context) == pytest.approx(whole / ranks)


@given(rooflines, st.floats(1, 256), st.floats(0, 10_000))
def test_a_pair_is_as_fast_as_its_slower_engine_or_as_both_where_they_share_a_device(
    roofline: PairRoofline, rows: float, context: float
) -> None:
    host = roofline.device.step_seconds + rows * roofline.device.row_seconds
    alone = [roofline.step_seconds(rows, context, (policy,)) - host for policy in POLICIES]
    together = sum(alone) if roofline.is_shared else max(alone)
    assert roofline.step_seconds(rows, context) - host == pytest.approx(together, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "gb_per_s"),
    [
        ("NVIDIA H100 80GB HBM3", 3350),
        ("NVIDIA H100 PCIe", 2000),
        ("NVIDIA H100 NVL", 3900),
        ("NVIDIA H200", 4800),
        ("NVIDIA A100-SXM4-80GB", 2039),
        ("NVIDIA A100 80GB PCIe", 1935),
        ("NVIDIA A100-SXM4-40GB", 1555),
        ("NVIDIA L40S", 864),
        ("NVIDIA L4", 300),
        ("NVIDIA A10", 600),
        ("NVIDIA GeForce RTX 4090", 1008),
        ("Tesla V100-SXM2-16GB", 900),
    ],
)
def test_a_gpu_is_known_by_the_name_that_torch_gives_it(name: str, gb_per_s: float) -> None:
    device = gpu(name, 2, 1)
    assert device is not None and device.name == name
    h200 = gpu("NVIDIA H200", 2, 1)
    assert h200 is not None
    assert device.bandwidth / h200.bandwidth == pytest.approx(gb_per_s / 4800)


def test_a_gpu_that_is_not_known_has_no_figures() -> None:
    assert gpu("AMD Instinct MI300X", 2, 1) is None


def test_engines_share_the_cores_of_a_cpu() -> None:
    two, eight = cpu(2), cpu(8)
    assert two.bandwidth == pytest.approx(4 * eight.bandwidth)
    assert two.flops > 0


def planned(**settings: Any) -> Plan:
    problems = (Problem("t/1", "11+22=?", "33"), Problem("t/2", "22+33=?", "55"))
    task = Task("t", problems, "{question}", 3, 50)
    return prepare(load(None, {"device": "cpu", "out": "unused"} | settings), task)


@pytest.mark.parametrize(
    ("settings", "paired", "base", "rl"),
    [
        ({"direction": "reverse", "budget": "8"}, 6, 0, 0),
        ({"direction": "reverse", "budget": "0"}, 0, 0, 6),
        ({"direction": "both", "budget": "0,1,8"}, 12, 12, 12),
        ({"direction": "forward", "budget": "0,8", "trace": "full"}, 6, 6, 0),
    ],
)
def test_the_largest_budget_is_carried_by_both_engines_and_the_others_by_the_primary(
    settings: dict[str, Any], paired: int, base: int, rl: int
) -> None:
    amount = planned(**settings).work.amount
    assert amount.num_paired == paired
    assert (amount.num_solo.get("base", 0), amount.num_solo.get("rl", 0)) == (base, rl)
    assert (amount.length, amount.is_limit) == (50, True)


def test_a_plan_says_the_time_and_its_assumption() -> None:
    [line] = [value for name, value in planned().describe() if name == "time"]
    assert line.startswith("at most about ") and line.endswith("if responses are 50 tokens")
    assert "this machine's CPU" in line


def test_on_gpus_a_plan_says_gpu_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = planned(device="cuda", pairs=2, tensor_parallel_size=2).cost
    assert cost.num_gpus == 8 and cost.seconds and cost.gpu_hours == 8 * cost.seconds / 3600
    assert "GPU hours" in str(cost) and "on 8 GPUs (" in str(cost)


def test_a_plan_for_an_unknown_gpu_says_that_it_is_unknown() -> None:
    cost = replace(planned(device="cuda").cost, seconds=None, roofline=None)
    assert cost.gpu_hours is None and str(cost).startswith("unknown on 2 GPUs")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 s"),
        (80, "80 s"),
        (100, "1.7 min"),
        (1440, "24 min"),
        (11_520, "3.2 h"),
        (2e6, "23 days"),
    ],
)
def test_rough_durations(seconds: float, text: str) -> None:
    assert rough_duration(seconds) == text
