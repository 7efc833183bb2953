"""The modelled engines: the project's own scheduling over simulated time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.modelled import Speed
from benchmarks.simulate import (
    Machine,
    Workload,
    longest_first,
    make_workload,
    reasoning_lengths,
    simulate,
)
from benchmarks.validation import Real, TimedPhase, calibrate, fastest
from engine.core import POLICIES
from engine.models.roofline import Device, EngineLoad, PairRoofline

SLOTS = 8
STEP, ROW = 0.01, 0.001
ROOFLINE = PairRoofline(
    dict.fromkeys(POLICIES, EngineLoad(0, 0, 0)), Device("d", 1, 1, STEP, ROW), is_shared=False
)
SPEED = Speed(ROOFLINE, ROOFLINE, prompt_tokens=10, switch_s=1.0)
EARLY = (1.0, 27.0)
FULL_STEP = STEP + SLOTS * ROW


def workload(
    number: int = 400, budgets: tuple[int | None, ...] = (8,), directions: tuple[str, ...] = ()
) -> Workload:
    lengths = reasoning_lengths(number, mean=400, cap=800)
    return make_workload(lengths, directions or ("reverse",), budgets, EARLY)


def test_equal_responses_fill_every_slot_of_both_engines_to_the_end() -> None:
    work = make_workload(np.full(5 * SLOTS, 100), ("forward",), (None,), EARLY)
    run = simulate(work, SPEED, SLOTS)
    assert run.seconds == pytest.approx(5 * 100 * FULL_STEP)
    assert run.used == pytest.approx(1) and run.steps == 2 * 5 * 100


def test_a_row_may_stand_for_several_tokens() -> None:
    work = make_workload(np.full(5 * SLOTS, 100), ("forward",), (None,), EARLY)
    rows = make_workload(np.full(5 * SLOTS, 25), ("forward",), (None,), EARLY)._replace(grain=4)
    assert simulate(rows, SPEED, SLOTS).seconds == simulate(work, SPEED, SLOTS).seconds
    assert rows.num_tokens == work.num_tokens == 4000


def test_an_engine_is_idle_where_budgets_are_spent_early_and_not_with_both_directions() -> None:
    assert simulate(workload(), SPEED, SLOTS).idle > 0.35
    assert simulate(workload(directions=("forward", "reverse")), SPEED, SLOTS).idle < 0.05


def test_a_twin_that_helps_is_less_idle_and_saves_time() -> None:
    alone, helped = (simulate(workload(), SPEED, SLOTS, 1, helps) for helps in (False, True))
    assert helped.seconds < 0.8 * alone.seconds and helped.idle < 0.3 * alone.idle
    # There and back for each lease; nobody waits for the way back after the last one.
    num_switches = 2 * helped.leases - 1
    assert helped.switching * helped.seconds >= num_switches * SPEED.switch_s / 2 - 1e-9


def test_every_slot_second_is_counted_once() -> None:
    for helps in (False, True):
        run = simulate(workload(budgets=(0, 2, 8)), SPEED, SLOTS, 2, helps)
        assert 0 <= run.idle < 1
        assert run.used + run.tail + run.idle + run.switching == pytest.approx(1)


def test_more_pairs_take_less_time_and_no_more_than_their_share_of_it() -> None:
    one, two, four = (simulate(workload(), SPEED, SLOTS, pairs).seconds for pairs in (1, 2, 4))
    assert one / 2 <= two * 1.05 and two < 0.7 * one
    assert one / 4 <= four * 1.05 and four < two


def test_simulated_time_does_not_depend_on_the_threads_of_the_pairs() -> None:
    runs = {simulate(workload(), SPEED, SLOTS, 3) for _ in range(3)}
    assert len(runs) == 1


def test_slower_steps_and_weights_take_longer() -> None:
    slow = replace(ROOFLINE, device=replace(ROOFLINE.device, step_seconds=2 * STEP))
    assert (
        simulate(workload(), replace(SPEED, solo=slow), SLOTS).seconds
        > simulate(workload(), SPEED, SLOTS).seconds
    )
    dear = replace(SPEED, switch_s=20.0)
    quick, slow_to_switch = (
        simulate(workload(), speed, SLOTS, 1, True).seconds for speed in (SPEED, dear)
    )
    assert quick < slow_to_switch


def test_larger_models_are_slower_and_more_gpus_an_engine_are_faster() -> None:
    machine = Machine("32b", "H100", 8, 4, 64, 5e9)
    assert machine.num_pairs == 1 and replace(machine, num_gpus=64).num_pairs == 8
    steps = [
        replace(machine, model=model).speed(200).paired.step_seconds(64, 4000, POLICIES)
        for model in ("7b", "32b", "70b")
    ]
    assert steps == sorted(steps)
    assert machine.speed(200).paired.step_seconds(64, 4000, POLICIES) < replace(
        machine, ranks=2
    ).speed(200).paired.step_seconds(64, 4000, POLICIES)


def test_lengths_have_their_mean_and_the_longest_come_first_as_far_as_is_known() -> None:
    lengths = reasoning_lengths(960, mean=4000, cap=100_000)
    assert lengths.mean() == pytest.approx(4000, rel=0.2)
    ordered = longest_first(lengths)
    assert sorted(ordered) == sorted(lengths)
    assert ordered[:480].mean() > 1.5 * ordered[480:].mean()


def test_a_line_through_the_steps_of_a_run_is_found_again() -> None:
    rng = np.random.default_rng(0)

    def phase(paired: bool) -> TimedPhase:
        rows = rng.integers(1, SLOTS + 1, 200)
        prompts = rng.integers(0, 2, 200) * rng.integers(1, 50, 200)
        context = rows * rng.integers(10, 80, 200)
        seconds = STEP * (1 + paired) + ROW * rows + 1e-4 * prompts + 1e-5 * context
        lists = (rows, rows + prompts, context, seconds)
        return TimedPhase(paired, 20, *(one.tolist() for one in lists))

    timed = [phase(True), phase(False)]
    steps_s = sum(sum(one.seconds) for one in timed)
    real = Real(steps_s + 4.0, workload(), [{"base": timed, "rl": timed}])
    speed = calibrate(real)
    for line, fixed in ((speed.paired, 2 * STEP), (speed.solo, STEP)):
        assert line.step_seconds(3, 40, POLICIES) == pytest.approx(fixed + 3 * (ROW + 40e-5))
        assert line.prefill_seconds(50, POLICIES) == pytest.approx(50e-4)
    assert speed.sequence_s == pytest.approx(0.1)
    assert real.steps == 800
    slow = [replace_seconds(one, factor=3.0) for one in timed]
    disturbed = Real(steps_s * 3 + 9.0, real.workload, [{"base": slow, "rl": timed}])
    assert fastest([disturbed, real]).seconds == pytest.approx(real.seconds)


def replace_seconds(phase: TimedPhase, factor: float) -> TimedPhase:
    return phase._replace(seconds=[factor * one for one in phase.seconds])
