"""A run of the embedded pair gives, token for token, what the oracle in reference.py gives."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from engine.core import Trajectory
from engine.models.pair_info import TINY_PAIR
from engine.store.run_store import RunStore
from engine.store.verify import verify_run
from tests.support.engines import (
    NUM_SEEDS,
    TOLERANCE,
    WHOLE,
    floats,
    keys_of,
    less_on_v2,
    of_plan,
    plan_of,
    undisturbed,
)
from tests.support.reference import Policy, Position, cross_sample

# Numbers of the full distribution carry the rounding of the float32 logits: transformers' own
# differ from those of the same model in float64 by up to 3e-5, and the entropies by up to 1.1e-5.
FLOAT32_MODEL = 3e-5
pytestmark = pytest.mark.v2
# The oracle takes a second for ten responses, so it is asked for some of each arm.
ASKED: dict[str, Any] = {"limit": less_on_v2(8, WHOLE["limit"]), "samples": 2}
NUM_ASKED = ASKED["limit"] * ASKED["samples"]
ARMS = list(product(("forward", "reverse"), WHOLE["budget"]))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


@pytest.fixture(scope="module")
def oracle() -> dict[Trajectory, list[Position]]:
    torch.set_num_threads(1)  # one token at a time leaves a second one nothing but waiting
    plan = plan_of(**ASKED)
    policies = {name: Policy(TINY_PAIR / name) for name in ("base", "rl")}
    return {
        key: cross_sample(
            policies, {"forward": "base", "reverse": "rl"}[key.direction], plan.work.prompt(key),
            key.problem, key.sample, key.budget, max_tokens=plan.work.job(key).max_tokens,
        )
        for key in plan.work.trajectories()
    }  # fmt: skip


@pytest.fixture(scope="module")
def rows(store: RunStore) -> pa.Table:
    """The rows that the oracle is asked for, a trajectory's together and in order."""
    table = of_plan(store, plan_of(**ASKED))
    order = pa.array([f"{key}" for key in keys_of(table)])
    return table.append_column("order", order).sort_by(
        [("order", "ascending"), ("position", "ascending")]
    )


@pytest.fixture(scope="module")
def expected(rows: pa.Table, oracle: dict[Trajectory, list[Position]]) -> list[Position]:
    """The oracle's positions in the order of `rows`."""
    return [position for key in dict.fromkeys(keys_of(rows)) for position in oracle[key]]


def assert_close(ours: Any, theirs: Any, everywhere: float) -> None:
    """Within TOLERANCE at 999 positions of 1000, and within `everywhere` at all of them."""
    error = np.abs(ours - theirs)
    assert error.max() < everywhere
    assert (error > TOLERANCE).mean() < 1e-3


def test_the_run_holds_all_trajectories_of_each_arm_once_and_whole(store: RunStore) -> None:
    found = verify_run(store)
    assert found.complete, found
    assert found.num_expected == NUM_SEEDS * len(ARMS)


@pytest.mark.parametrize(("direction", "budget"), ARMS)
def test_every_token_is_the_one_that_the_oracle_takes(
    store: RunStore, oracle: dict[Trajectory, list[Position]], direction: str, budget: int | None
) -> None:
    responses = store.responses()
    pairs = zip(keys_of(responses), responses["token_ids"].to_pylist(), strict=True)
    arm = {
        key: tokens
        for key, tokens in pairs
        if (key.direction, key.budget) == (direction, budget) and key in oracle
    }
    flipped = {
        key: next(
            n for n, (a, b) in enumerate(zip([*tokens, -1], [*theirs, -1], strict=False)) if a != b
        )
        for key, tokens in arm.items()
        if tokens != (theirs := [row.token for row in oracle[key]])
    }
    assert len(arm) == NUM_ASKED
    assert not flipped, "trajectory -> first position that differs"


def test_interventions_and_those_that_changed_the_token_are_the_oracles(
    rows: pa.Table, expected: list[Position]
) -> None:
    assert rows["intervened"].to_pylist() == [row.intervened for row in expected]
    assert rows["effective"].to_pylist() == [row.effective for row in expected]
    assert rows["primary_token"].to_pylist() == [row.primary_token for row in expected]
    assert 0 < sum(row.effective for row in expected) < sum(row.intervened for row in expected)


@pytest.mark.parametrize("column", ["js", "entropy_base", "entropy_rl", "logp_base", "logp_rl"])
def test_measured_numbers_are_the_oracles_where_both_policies_were_there(
    rows: pa.Table, expected: list[Position], column: str
) -> None:
    paired = np.array([row.js is not None for row in expected])
    assert paired.sum() > len(expected) / 4
    ours, theirs = (
        floats(rows[column])[paired],
        floats([getattr(row, column) for row in expected])[paired],
    )
    assert_close(ours, theirs, everywhere=TOLERANCE if column == "js" else FLOAT32_MODEL)


@pytest.mark.parametrize(
    ("direction", "own", "other"), [("forward", "base", "rl"), ("reverse", "rl", "base")]
)
def test_where_the_primary_was_alone_its_columns_are_filled_and_the_others_are_null(
    rows: pa.Table, expected: list[Position], direction: str, own: str, other: str
) -> None:
    alone = [
        row.js is None and key.direction == direction
        for key, row in zip(keys_of(rows), expected, strict=True)
    ]
    solo, theirs = (
        rows.filter(pa.array(alone)),
        [row for row, is_alone in zip(expected, alone, strict=True) if is_alone],
    )
    assert len(theirs) > len(expected) / 8
    for name in ("entropy", "logp", "rank", "nucleus", "top1"):
        assert solo[f"{name}_{own}"].null_count == 0
        assert solo[f"{name}_{other}"].null_count == len(theirs)
    for name in (
        "js",
        "topk_base",
        "topk_rl",
        f"logp_{other}_of_top1_{own}",
        f"logp_{own}_of_top1_{other}",
    ):
        assert solo[name].null_count == len(theirs)
    for name in ("entropy", "logp"):
        reference = floats([getattr(row, f"{name}_{own}") for row in theirs])
        assert_close(floats(solo[f"{name}_{own}"]), reference, everywhere=FLOAT32_MODEL)
