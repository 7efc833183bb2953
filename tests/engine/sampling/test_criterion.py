"""Criteria: each fires where its definition says, on full distributions written out; random
positions are random.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.coupling import CoupledDraws, couple
from engine.sampling.criterion import (
    ASKS_ENTROPY,
    Answers,
    coarse_kl,
    draw_positions,
    fires,
    query,
)
from engine.sampling.distribution import Nuclei, Sampling, nuclei
from engine.sampling.noise import stream_key
from engine.sampling.rule import CriterionName

VOCAB = 12
Matrix = np.ndarray[Any, np.dtype[np.float64]]


def distributions(seed: int, num: int, peaked: float = 2.0) -> Matrix:
    """Full distributions [num, VOCAB]."""
    score = peaked * np.random.default_rng(seed).standard_normal((num, VOCAB))
    p: Matrix = np.exp(score) / np.exp(score).sum(1, keepdims=True)
    return p


def truncated(p: Matrix) -> Nuclei:
    import torch

    return nuclei(torch.from_numpy(np.log(p)).float(), Sampling(1.0, 0.7))


def draws_of(base: Matrix, rl: Matrix, forward: bool = True) -> CoupledDraws:
    num = len(base)
    key = np.full(num, stream_key(0, "p", 0), np.uint64)
    return couple(truncated(base), truncated(rl), np.full(num, forward), key, np.arange(num))


def decide_all(
    criterion: CriterionName, threshold: float, base: Matrix, rl: Matrix, forward: bool = True
) -> list[bool]:
    """Where the criterion fires, its questions answered from the full distributions."""
    draws, answers = draws_of(base, rl, forward), None
    if criterion in ASKS_ENTROPY:
        answers = Answers(np.arange(len(base)), *(-(p * np.log(p)).sum(1) for p in (base, rl)))
    elif needed := query(criterion, draws):
        answers = Answers(needed.row, *(np.log(p[needed.row, needed.token]) for p in (base, rl)))
    return list(map(bool, fires(criterion, threshold, draws, answers)))


def entropies(p: Matrix) -> Matrix:
    return np.asarray(-(p * np.log(p)).sum(1))


BASE, RL = distributions(1, 60), distributions(2, 60)


def test_entropy_is_of_the_policy_that_it_names() -> None:
    assert decide_all("entropy-base", 1.2, BASE, RL) == (entropies(BASE) > 1.2).tolist()
    assert decide_all("entropy-rl", 1.2, BASE, RL) == (entropies(RL) > 1.2).tolist()


def test_argmax_fires_where_the_best_tokens_differ() -> None:
    differ = BASE.argmax(1) != RL.argmax(1)
    assert decide_all("argmax", 0.0, BASE, RL) == differ.tolist()
    assert 0 < differ.sum() < 60


@pytest.mark.parametrize("forward", [True, False])
def test_dlogp_fires_where_the_other_policy_finds_the_primarys_token_less_likely(
    forward: bool,
) -> None:
    token, row = draws_of(BASE, RL, forward).primary, np.arange(60)
    primary, other = (BASE, RL) if forward else (RL, BASE)
    expected = np.log(other[row, token]) - np.log(primary[row, token]) < -0.3
    assert decide_all("dlogp", -0.3, BASE, RL, forward) == expected.tolist()
    assert 0 < expected.sum() < 60


def test_the_two_kl_are_each_other_with_the_policies_swapped_and_do_not_ask_who_is_primary() -> (
    None
):
    for forward in (True, False):
        assert decide_all("kl", 0.5, BASE, RL, forward) == decide_all(
            "reverse-kl", 0.5, RL, BASE, forward
        )
    assert decide_all("kl", 0.5, BASE, RL, True) == decide_all("kl", 0.5, BASE, RL, False)
    assert decide_all("kl", 0.5, BASE, RL) != decide_all("reverse-kl", 0.5, BASE, RL)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 2.0, 6.0]))
def test_the_coarse_kl_is_at_most_the_full_one_finite_and_0_for_equals(
    seed: int, peaked: float
) -> None:
    p, q = distributions(seed, 5, peaked), distributions(seed + 1, 5, peaked)
    needed = query("kl", draws_of(p, q))
    assert needed
    cells = (needed.row, needed.token)
    coarse = coarse_kl(needed.row, np.log(p[cells]), np.log(q[cells]))
    full = (p * np.log(p / q)).sum(1)
    assert np.isfinite(coarse).all() and (coarse > -1e-9).all() and (coarse <= full + 1e-9).all()
    np.testing.assert_allclose(
        coarse_kl(needed.row, np.log(p[cells]), np.log(p[cells])), 0, atol=1e-9
    )


def test_the_cells_of_kl_are_the_tokens_of_both_nuclei() -> None:
    needed = query("kl", draws_of(BASE, RL))
    assert needed
    base, rl = truncated(BASE), truncated(RL)
    found = set(zip(needed.row.tolist(), needed.token.tolist(), strict=True))
    assert found == {
        (r, t) for n in (base, rl) for r, t in zip(n.row.tolist(), n.token.tolist(), strict=True)
    }
    assert len(found) == len(needed.row)


def test_js_and_those_that_look_at_nothing() -> None:
    assert decide_all("js", 0.1, BASE, RL) == (draws_of(BASE, RL).js > 0.1).tolist()
    assert decide_all("always", 0.0, BASE, RL) == [True] * 60
    assert decide_all("never", 0.0, BASE, RL) == [False] * 60


@pytest.mark.parametrize("criterion", ["js", "argmax", "random", "always", "never"])
def test_these_ask_nothing_of_the_full_distributions(criterion: CriterionName) -> None:
    assert query(criterion, draws_of(BASE, RL)) is None and criterion not in ASKS_ENTROPY


def test_random_fires_at_its_rate_whatever_the_policies_say_and_apart_from_the_tokens() -> None:
    num = 20_000
    one = Nuclei(np.ones(num, np.int64), np.zeros(num, np.int64), np.ones(num))
    key = np.full(num, stream_key(0, "p", 0), np.uint64)
    draws = couple(one, one, np.full(num, True), key, np.arange(num))
    fired = fires("random", 0.2, draws, None)
    assert abs(fired.mean() - 0.2) < 0.01
    # Two in a row are as frequent as if neighbours were independent.
    assert abs((fired[1:] & fired[:-1]).mean() - 0.04) < 0.006
    assert (fires("random", 0.1, draws, None) <= fired).all()


@given(st.integers(0, 2**64 - 1), st.integers(0, 12), st.integers(0, 20), st.integers(0, 40))
def test_random_positions_are_distinct_in_the_window_and_as_many_as_there_is_room_for(
    key: int, count: int, start: int, stop: int
) -> None:
    chosen = draw_positions(key, count, start, stop).tolist()
    assert chosen == sorted(set(chosen))
    assert all(start <= position < stop for position in chosen)
    assert len(chosen) == min(count, max(0, stop - start))


@given(st.integers(0, 2**64 - 1), st.integers(0, 12), st.integers(0, 40), st.integers(0, 40))
def test_a_shorter_span_keeps_the_positions_that_it_has_room_for(
    key: int, count: int, one: int, other: int
) -> None:
    short, long = sorted((one, other))
    kept = [
        position for position in draw_positions(key, count, 0, long).tolist() if position < short
    ]
    assert set(kept) <= set(draw_positions(key, count, 0, short).tolist())


def test_every_position_is_chosen_equally_often() -> None:
    times = np.zeros(20)
    for sample in range(4000):
        times[draw_positions(stream_key(0, "p", sample), 5, 0, 20)] += 1
    expected = 4000 * 5 / 20
    assert (
        (times - expected) ** 2 / (expected * (1 - 5 / 20))
    ).sum() < 50  # chi-square with 19 degrees of freedom


def test_a_token_that_one_policy_masks_leaves_the_kl_a_number() -> None:
    row, half, never = np.array([0, 0]), np.log([0.5, 0.5]), np.array([0.0, -np.inf])
    assert np.isfinite(coarse_kl(row, half, never)).all() and coarse_kl(row, half, never)[0] > 100
    np.testing.assert_allclose(coarse_kl(row, never, half), np.log(2), atol=1e-4)
