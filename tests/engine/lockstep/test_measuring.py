"""Measuring by prefill: what both policies say of responses that are there already is what the
oracle says, however the engines come to compute them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from engine.core import POLICIES
from engine.lockstep import measuring
from engine.models.pair_info import TINY_PAIR
from engine.run.placement import pair_config
from tests.support.engines import (
    TOLERANCE,
    KeptPair,
    carry_out,
    kept_pair,
    less_on_v2,
    plan_of,
    responses_of,
)
from tests.support.measuring import assert_same_numbers, measured, measured_again
from tests.support.reference import Policy, entropy, js, nucleus

pytestmark = pytest.mark.v2
WORK: dict[str, Any] = {"budget": (2,)} | less_on_v2(
    {"limit": 6, "samples": 2}, {"limit": 2, "samples": 1, "max_tokens": 32}
)
FLOAT32_MODEL = 3e-5  # of numbers of the full distribution, see test_exact
OTHER = {"base": "rl", "rl": "base"}


@pytest.fixture(scope="module")
def pair() -> KeptPair:
    pair = kept_pair(pair_config(plan_of(), 0))
    pair.start()
    return pair


@pytest.fixture(scope="module")
def policies() -> dict[str, Policy]:
    torch.set_num_threads(1)  # one token at a time leaves a second one nothing but waiting
    return {name: Policy(TINY_PAIR / name) for name in POLICIES}


@pytest.fixture(scope="module")
def responses(pair: KeptPair) -> list[tuple[list[int], list[int]]]:
    """Prompts and responses of both directions, with stop tokens inside, and one of them twice."""
    plan = plan_of(**WORK)
    made = [
        (plan.work.prompt(key), tokens)
        for key, tokens in responses_of(carry_out(pair, plan)).items()
    ]
    [stop] = plan.pair.stop_token_ids
    prompt, tokens = made[0]
    return [*made, made[0], (prompt, [5, stop, *tokens, stop, 7]), (prompt, tokens[:1])]


@pytest.fixture(scope="module")
def rows(pair: KeptPair, responses: list[tuple[list[int], list[int]]]) -> pa.Table:
    return measured(pair, responses)


def test_every_token_has_its_row_and_nothing_is_intervened(
    rows: pa.Table, responses: list[tuple[list[int], list[int]]]
) -> None:
    places = [(n, position) for n, (_, ids) in enumerate(responses) for position in range(len(ids))]
    pairs = zip(rows["sequence"].to_pylist(), rows["position"].to_pylist(), strict=True)
    assert list(pairs) == places
    assert rows["token"].to_pylist() == [token for _, ids in responses for token in ids]
    assert not any(rows["intervened"].to_pylist()) and not any(rows["effective"].to_pylist())
    assert rows["primary_token"].null_count == rows.num_rows


def test_all_numbers_are_the_oracles(
    rows: pa.Table,
    responses: list[tuple[list[int], list[int]]],
    policies: dict[str, Policy],
) -> None:
    row = 0
    columns = {name: rows[name].to_pylist() for name in rows.column_names}
    for prompt, ids in responses:
        for policy in policies.values():
            policy.read()
        for position, token in enumerate(ids):
            full = {
                name: policy.distribution(prompt + ids[:position])
                for name, policy in policies.items()
            }
            short = {name: nucleus(p, 0.7) for name, p in full.items()}
            expected = {"js": js(short["base"], short["rl"])}
            for name, p in full.items():
                best = int(full[OTHER[name]].argmax())
                expected[f"entropy_{name}"] = entropy(p)
                expected[f"logp_{name}"] = np.log(p[token])
                expected[f"logp_{name}_of_top1_{OTHER[name]}"] = np.log(p[best])
                for column, of in (("", token), (f"_of_top1_{OTHER[name]}", best)):
                    rank = columns[f"rank_{name}{column}"][row]
                    near = np.abs(np.log(p / p[of])) < FLOAT32_MODEL
                    assert abs(rank - 1 - (p > p[of]).sum()) < near.sum()
                assert columns[f"top1_{name}"][row] == p.argmax()
                assert columns[f"nucleus_{name}"][row] == (short[name] > 0).sum()
                listed = columns[f"topk_{name}"][row]
                assert (listed is not None) == (expected["js"] >= 0.1)
                if listed is not None:
                    best_first = np.sort(p)[::-1][: len(listed)]
                    np.testing.assert_allclose(np.log(p[listed] / best_first), 0, atol=1e-4)
                    assert len(set(listed)) == len(listed) == 10
            for column, number in expected.items():
                # A token that a model finds unlikely carries the rounding of its larger logits.
                within = FLOAT32_MODEL * max(1.0, abs(number)) if column != "js" else TOLERANCE
                assert abs(columns[column][row] - number) < within, (column, row)
            row += 1
    assert row == rows.num_rows


def test_the_same_numbers_if_no_list_holds_the_other_s_best_token_and_each_is_asked_for_again(
    pair: KeptPair,
    rows: pa.Table,
    responses: list[tuple[list[int], list[int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    differ = sum(
        a != b for a, b in zip(*(rows[f"top1_{p}"].to_pylist() for p in POLICIES), strict=True)
    )
    assert differ > 0
    monkeypatch.setattr(measuring, "LIST_LENGTH", 1)
    monkeypatch.setattr(pair, "config", pair_config(plan_of(record_top_k=1), 0))
    assert_same_numbers(measured(pair, responses), rows)


def test_the_same_numbers_whatever_else_is_measured_beside_them(
    pair: KeptPair, rows: pa.Table, responses: list[tuple[list[int], list[int]]]
) -> None:
    """Also if another phase has left these very texts in the engines' caches."""
    last = rows.filter(rows["sequence"].to_numpy() == len(responses) - 2)
    assert_same_numbers(measured(pair, responses[-2:-1]), last)


def test_a_full_trace_has_the_numbers_of_its_responses_measured_by_themselves(
    pair: KeptPair,
) -> None:
    """Its stems were measured while they were decided, its tails afterwards."""
    plan = plan_of(**WORK | {"direction": "both", "budget": (0, 1, None)}, trace="full")
    made = carry_out(pair, plan)
    assert made["js"].null_count == 0
    found, made = measured_again(pair, made, plan)
    assert_same_numbers(found, made)
