"""Interventions on real engines: forks are reruns, every criterion is the oracle's, controls keep
their counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from engine.core import Trajectory
from engine.lockstep.job import Job
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.models.pair_info import TINY_PAIR
from engine.run.placement import pair_config
from engine.run.plan import Plan
from engine.store.run_store import RunStore
from tests.support.engines import (
    assert_same,
    carry_out,
    complete,
    floats,
    kept_pair,
    keys_of,
    less_on_v2,
    of_keys,
    plan_of,
    responses_of,
    undisturbed,
)
from tests.support.reference import Policy, Position, cross_sample

BUDGETS = less_on_v2((0, 1, 2, 4, 8, 16, None), (0, 2, None))
SWEEP: dict[str, Any] = {"direction": "both"} | less_on_v2(
    {"limit": 16, "samples": 4}, {"limit": 2, "samples": 1, "max_tokens": 64}
)
PART_OF_SWEEP = SWEEP | less_on_v2({"limit": 8, "samples": 2}, {})
SMALL: dict[str, Any] = {"direction": "both", "budget": (2, None)} | less_on_v2(
    {"limit": 2, "samples": 1}, {"limit": 1, "samples": 1, "max_tokens": 48}
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


@pytest.fixture(scope="module")
def pair() -> LeaseRunner:
    pair = kept_pair(pair_config(plan_of(), 0))
    pair.start()
    return pair


@pytest.fixture(scope="module")
def sweep(pair: LeaseRunner) -> pa.Table:
    return carry_out(pair, plan_of(**SWEEP, budget=BUDGETS))


@pytest.fixture(scope="module")
def policies() -> dict[str, Policy]:
    torch.set_num_threads(1)  # one token at a time leaves a second one nothing but waiting
    return {name: Policy(TINY_PAIR / name) for name in ("base", "rl")}


def arm(rows: pa.Table, direction: str, budget: int | None) -> dict[tuple[str, int], list[int]]:
    """The responses of one arm by (problem, sample)."""
    found = responses_of(rows).items()
    return {
        key[:2]: tokens
        for key, tokens in found
        if (key.direction, key.budget) == (direction, budget)
    }


def interventions(rows: pa.Table) -> dict[Trajectory, int]:
    counts = dict.fromkeys(keys_of(rows), 0)
    for key in keys_of(rows.filter(rows["intervened"])):
        counts[key] += 1
    return counts


@pytest.mark.v2
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_fork_is_what_a_run_with_its_budget_alone_gives_in_every_column(
    pair: LeaseRunner, sweep: pa.Table, budget: int | None
) -> None:
    plan = plan_of(**SWEEP, budget=(budget,))
    alone = carry_out(pair, plan)
    assert len(responses_of(alone)) == plan.work.num_trajectories > 1
    assert_same(of_keys(sweep, plan.work.trajectories()), alone)


def test_forks_say_what_they_are_forked_from_and_the_stem_does_not(pair: LeaseRunner) -> None:
    plan = plan_of(limit=4, samples=1, direction="forward", budget=(0, 1, 4))
    keys = list(plan.work.trajectories())
    done = [
        e
        for e in pair.run([plan.work.job(key) for key in keys], plan.rule)
        if isinstance(e, Completed)
    ]
    stems = {
        keys[job]: keys[stem] for e in done for job, stem in zip(e.job, e.stem_index, strict=True)
    }
    assert stems == {key: key._replace(budget=4) for key in keys}


def test_always_forward_is_the_rl_model_and_never_forward_is_the_base_token_for_token(
    pair: LeaseRunner, sweep: pa.Table
) -> None:
    always = carry_out(pair, plan_of(**SWEEP, budget=(None,), criterion="always"))
    never = carry_out(pair, plan_of(**SWEEP, budget=(None,), criterion="never"))
    base, rl = arm(sweep, "forward", 0), arm(sweep, "reverse", 0)
    assert len(base) == len(rl) == SWEEP["limit"] * SWEEP["samples"] and base != rl
    assert arm(always, "forward", None) == arm(never, "reverse", None) == rl
    assert arm(never, "forward", None) == arm(always, "reverse", None) == base
    assert never["js"].null_count == 0


RULES: list[dict[str, Any]] = [
    {"criterion": "kl", "threshold": 0.3},
    {"criterion": "reverse-kl", "threshold": 0.3},
    {"criterion": "entropy-base", "threshold": 0.5},
    {"criterion": "entropy-rl", "threshold": 0.5},
    {"criterion": "dlogp"},
    {"criterion": "argmax"},
    {"criterion": "random", "threshold": 0.2},
    {"criterion": "always", "window": ":20%"},
    {"window": "3:"},
    {"window": "10%:40", "trace": "full"},
    {"eos": "drop"},
    {"criterion": "always", "eos": "resample"},
    {"extrapolate": 0.5, "extrapolate_to": "rl"},
    {"extrapolate": 0.2, "extrapolate_to": "base"},
    {"threshold": 0.15, "trace": "full"},
]
# What a rule asks of an engine's step: its full distributions, another token than both policies
# drew, steps beside a twin to the end. The rest of a rule knows no model runner.
RULES_ON_V2 = [RULES[0], RULES[9], RULES[11], RULES[12]]


@pytest.mark.v2
@pytest.mark.parametrize(
    "settings",
    less_on_v2(RULES, RULES_ON_V2),
    ids=lambda settings: " ".join(f"{k}={v}" for k, v in settings.items()),
)
def test_every_rule_takes_the_oracles_tokens_and_interventions(
    pair: LeaseRunner, policies: dict[str, Policy], settings: dict[str, Any]
) -> None:
    plan = plan_of(**SMALL | settings)
    rows = carry_out(pair, plan).sort_by(
        [(name, "ascending") for name in ("problem", "sample", "direction", "budget", "position")]
    )
    for key in dict.fromkeys(keys_of(rows)):
        mine = of_keys(rows, [key])
        theirs = oracle(plan, policies, key)
        for name in ("token", "intervened", "effective", "primary_token"):
            assert mine[name].to_pylist() == [getattr(row, name) for row in theirs], (key, name)
        assert mine["js"].is_valid().to_pylist() == [row.js is not None for row in theirs], key
    if settings.get("eos") != "drop":
        assert pc.any(rows["intervened"]).as_py()


def oracle(plan: Plan, policies: dict[str, Policy], key: Trajectory) -> list[Position]:
    return cross_sample(
        policies, {"forward": "base", "reverse": "rl"}[key.direction], plan.work.prompt(key),
        key.problem, key.sample, key.budget, rule=plan.rule,
        max_tokens=plan.work.job(key).max_tokens,
    )  # fmt: skip


def test_random_positions_are_as_many_as_the_matched_run_s_and_elsewhere(
    pair: LeaseRunner, store: RunStore
) -> None:
    plan = plan_of(criterion="random", match=str(store.path))
    rows = carry_out(pair, plan)
    matched = store.tokens().to_table()
    assert plan.config.budget == (0, 1, 4, None)
    assert interventions(rows) == interventions(matched)
    ours, theirs = (
        {(*key, n) for key, n in zip(keys_of(chosen), chosen["position"].to_pylist(), strict=True)}
        for chosen in (table.filter(table["intervened"]) for table in (rows, matched))
    )
    assert 0 < len(ours & theirs) < len(ours) / 4


def test_counts_are_kept_also_where_interventions_are_dropped_and_responses_end_early(
    pair: LeaseRunner, tmp_path: Path
) -> None:
    settings = {"limit": 8, "samples": 2, "direction": "both", "budget": (3, None)}
    dropping = complete(
        plan_of(**settings, criterion="always", eos="drop", window="2:", out=str(tmp_path))
    )
    plan = plan_of(
        criterion="random", match=str(tmp_path), **settings
    )  # plan_of would give its own
    assert (plan.config.eos, plan.config.window) == ("drop", "2:")
    assert interventions(carry_out(pair, plan)) == interventions(dropping.tokens().to_table())


def test_random_positions_lie_all_over_the_controls_own_response(
    pair: LeaseRunner, store: RunStore
) -> None:
    """Also in reverse, where the matched responses are much shorter."""
    rows = carry_out(
        pair,
        plan_of(criterion="random", match=str(store.path), direction="reverse", budget=(None,)),
    )
    length = {key: len(tokens) for key, tokens in responses_of(rows).items()}
    chosen = rows.filter(rows["intervened"])
    place = np.array(chosen["position"].to_pylist()) / [length[key] for key in keys_of(chosen)]
    assert len(place) > 200
    assert abs(place.mean() - 0.5) < 4 * np.sqrt(1 / 12 / len(place))
    assert np.histogram(place, 4, (0, 1))[0].min() > len(place) / 8


def test_a_trace_to_the_end_has_the_same_tokens_and_both_policies_numbers_everywhere(
    pair: LeaseRunner, sweep: pa.Table
) -> None:
    plan = plan_of(**PART_OF_SWEEP, budget=BUDGETS, trace="full")
    rows = carry_out(pair, plan)
    assert responses_of(rows) == responses_of(of_keys(sweep, plan.work.trajectories()))
    for name in ("js", "entropy_base", "entropy_rl", "logp_base", "rank_base_of_top1_rl"):
        assert rows[name].null_count == 0
    assert interventions(rows) == interventions(of_keys(sweep, plan.work.trajectories()))


@pytest.mark.v2
def test_a_given_response_is_measured_as_it_was_when_it_was_made(
    pair: LeaseRunner, sweep: pa.Table
) -> None:
    plan = plan_of(**PART_OF_SWEEP, budget=(None,))
    keys = list(plan.work.trajectories())
    made = of_keys(sweep, keys)
    responses = responses_of(made)
    jobs = [
        Job(plan.work.prompt(key), 0, True, None, len(responses[key]), external=responses[key])
        for key in keys
    ]
    done = pa.concat_tables(
        [e.tokens for e in pair.run(jobs, plan.rule) if isinstance(e, Completed)]
    )
    order = {key: n for n, key in enumerate(keys)}
    made = made.append_column("sequence", pa.array([order[key] for key in keys_of(made)]))
    made, done = (
        table.sort_by([("sequence", "ascending"), ("position", "ascending")])
        for table in (made, done)
    )
    assert done["token"].to_pylist() == made["token"].to_pylist()
    for name in ("js", "entropy_base", "entropy_rl", "logp_base", "logp_rl"):
        np.testing.assert_allclose(
            floats(done[name]), floats(made[name]), rtol=0, atol=1e-5, err_msg=name
        )
    assert not pc.any(done["intervened"]).as_py()


@pytest.mark.v2
def test_a_given_response_may_hold_a_stop_token_anywhere(pair: LeaseRunner) -> None:
    plan = plan_of(limit=1, samples=1, direction="forward")
    [stop] = plan.pair.stop_token_ids
    prompt = plan.work.prompt(next(plan.work.trajectories()))
    job = Job(prompt, 0, True, None, 5, external=[5, stop, 6, stop, 7])
    [done] = [event for event in pair.run([job], plan.rule) if isinstance(event, Completed)]
    assert done.tokens["token"].to_pylist() == job.external
    assert done.tokens["js"].null_count == 0
