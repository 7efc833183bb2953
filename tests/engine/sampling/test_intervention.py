"""Decisions: draws follow the nucleus, the two policies are coupled, budget and threshold are kept
to the letter.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.coupling import couple, sample
from engine.sampling.criterion import fires
from engine.sampling.distribution import Nuclei, js_divergence
from engine.sampling.intervention import MAX_INTERVENTIONS, Decisions, allowed_rows, decide, follow
from engine.sampling.noise import gumbel, stream_key
from engine.sampling.rule import EosRule, Rule

KEY = np.array([stream_key(0, "problem", 0)], np.uint64)
Array = np.ndarray[Any, np.dtype[Any]]


def make(*rows: dict[int, float]) -> Nuclei:
    """Nuclei of {token: weight}: by falling weight and then rising id, each row normalised."""
    ordered = [sorted(row.items(), key=lambda entry: (-entry[1], entry[0])) for row in rows]
    weight = [np.array([w for _, w in row]) for row in ordered]
    return Nuclei(
        np.array([len(row) for row in ordered]),
        np.array([token for row in ordered for token, _ in row]),
        np.concatenate([w / w.sum() for w in weight]),
    )


def positions(num: int) -> tuple[Array, Array]:
    """Key and position of `num` rows of one sample."""
    return np.repeat(KEY, num), np.arange(num)


def decided(
    base: Nuclei,
    rl: Nuclei,
    forward: bool = True,
    left: int = MAX_INTERVENTIONS,
    threshold: float = 0.1,
) -> Decisions:
    num = len(base.size)
    return decided_rows(base, rl, np.full(num, forward), np.full(num, left), threshold)


def decided_rows(
    base: Nuclei, rl: Nuclei, forward: Array, left: Array, threshold: float = 0.1
) -> Decisions:
    key, position = positions(len(left))
    draws = couple(base, rl, forward, key, position)
    rule = Rule(threshold=threshold)
    return decide(
        rule,
        draws,
        allowed_rows(rule, position, fires(rule.criterion, threshold, draws, None), left),
    )


weights = st.dictionaries(
    st.integers(0, 12), st.sampled_from([0.01, 0.2, 0.5, 0.5001, 1.0, 3.0]), min_size=1
)
batches = st.lists(st.tuples(weights, weights), min_size=1, max_size=12).map(
    lambda pairs: (make(*(a for a, _ in pairs)), make(*(b for _, b in pairs)))
)
thresholds = st.sampled_from([0.0, 0.05, 0.1, 0.5, 0.69])


@pytest.mark.parametrize(
    ("nucleus", "limit"),  # chi-square's quantile 0.9999 at one degree of freedom less than tokens
    [
        ({3: 0.5, 9: 0.5}, 15.1),
        ({0: 0.7, 5: 0.2, 2: 0.1}, 18.4),
        ({t: 1 / (t + 1) for t in range(11)}, 35.6),
    ],
)
def test_draws_follow_the_probabilities_of_the_nucleus(
    nucleus: dict[int, float], limit: float
) -> None:
    num = 40_000
    expected = make(nucleus)
    drawn = sample(make(*[nucleus] * num), *positions(num))
    counts = np.array([(drawn == token).sum() for token in expected.token])
    assert counts.sum() == num
    assert ((counts - num * expected.p) ** 2 / (num * expected.p)).sum() < limit


def test_a_draw_is_the_argmax_of_log_p_plus_noise() -> None:
    nucleus = {7: 0.5, 1: 0.3, 4: 0.2}
    drawn = sample(make(*[nucleus] * 50), *positions(50))
    for position, token in enumerate(drawn):
        score = {
            t: np.log(p) + gumbel(KEY, np.array([position]), np.array([t]))[0]
            for t, p in nucleus.items()
        }
        assert token == max(score, key=lambda t: score[t])


@settings(deadline=None)
@given(batches)
def test_a_draw_does_not_depend_on_the_rest_of_the_batch(pair: tuple[Nuclei, Nuclei]) -> None:
    nuclei, num = pair[0], len(pair[0].size)
    together = sample(nuclei, *positions(num))
    for row, position in enumerate(range(num)):
        part = slice(nuclei.start[row], nuclei.start[row] + nuclei.size[row])
        alone = Nuclei(nuclei.size[row : row + 1], nuclei.token[part], nuclei.p[part])
        assert sample(alone, KEY, np.array([position])) == together[row]


def test_the_same_position_of_the_same_sample_draws_the_same_wherever_it_is() -> None:
    nuclei = make(*[{0: 1.0, 1: 1.0, 2: 1.0}] * 6)
    position = np.array([5, 0, 3, 5, 0, 3])
    drawn = sample(nuclei, np.repeat(KEY, 6), position)
    assert drawn[:3].tolist() == drawn[3:].tolist()


@settings(deadline=None)
@given(batches, st.booleans())
def test_equal_policies_never_intervene_and_take_what_either_would_alone(
    pair: tuple[Nuclei, Nuclei], forward: bool
) -> None:
    nuclei = pair[0]
    decisions = decided(nuclei, nuclei, forward, threshold=0.0)
    assert not decisions.intervened.any()
    assert not decisions.effective.any()
    assert decisions.js.tolist() == [0.0] * len(nuclei.size)
    assert decisions.token.tolist() == follow(nuclei, *positions(len(nuclei.size))).token.tolist()


def test_close_policies_nearly_always_take_the_same_token() -> None:
    """Coupling: with common noise a token changes about as often as the distributions differ (here
    1 %).
    """
    num = 5000
    base, rl = make(*[{0: 0.50, 1: 0.50}] * num), make(*[{0: 0.51, 1: 0.49}] * num)
    decisions = decided(base, rl, threshold=0.0)
    assert decisions.intervened.all()
    assert 0.003 < decisions.effective.mean() < 0.02


@settings(deadline=None)
@given(batches, st.booleans(), thresholds, st.sampled_from([0, 1, MAX_INTERVENTIONS]))
def test_forward_and_reverse_are_each_other_with_the_policies_swapped(
    pair: tuple[Nuclei, Nuclei], forward: bool, threshold: float, left: int
) -> None:
    base, rl = pair
    here = decided(base, rl, forward, left, threshold)
    there = decided(rl, base, not forward, left, threshold)
    for name in ("token", "intervened", "effective"):
        assert getattr(here, name).tolist() == getattr(there, name).tolist()
    np.testing.assert_allclose(here.js, there.js, atol=1e-15)


@settings(max_examples=150, deadline=None)
@given(batches, st.booleans(), thresholds, st.sampled_from([0, 1, 8, MAX_INTERVENTIONS]))
def test_the_token_comes_from_the_intervention_policy_exactly_where_the_rule_fires(
    pair: tuple[Nuclei, Nuclei], forward: bool, threshold: float, left: int
) -> None:
    base, rl = pair
    num = len(base.size)
    decisions = decided(base, rl, forward, left, threshold)
    primary, other = (base, rl) if forward else (rl, base)
    from_primary, from_other = (sample(nuclei, *positions(num)) for nuclei in (primary, other))
    js = js_divergence(base, rl)
    for row in range(num):
        fires = js[row] > threshold and left > 0
        assert decisions.intervened[row] == fires
        assert decisions.token[row] == (from_other[row] if fires else from_primary[row])
        assert decisions.effective[row] == (fires and from_other[row] != from_primary[row])
    assert decisions.js.tolist() == js.tolist()


@pytest.mark.parametrize("forward", [True, False])
def test_disjoint_policies_show_who_is_primary(forward: bool) -> None:
    base, rl = make({1: 1.0}), make({2: 1.0})
    assert decided(base, rl, forward, left=0).token.tolist() == [1 if forward else 2]
    assert decided(base, rl, forward, left=1).token.tolist() == [2 if forward else 1]
    assert decided(base, rl, forward, left=1).effective.all()


def test_rows_of_both_directions_and_different_budgets_share_a_batch() -> None:
    base, rl = make(*[{1: 1.0}] * 4), make(*[{2: 1.0}] * 4)
    forward, left = np.array([True, True, False, False]), np.array([0, 5, 0, 5])
    decisions = decided_rows(base, rl, forward, left)
    assert decisions.token.tolist() == [1, 2, 2, 1]
    assert (
        decisions.intervened.tolist() == decisions.effective.tolist() == [False, True, False, True]
    )


def test_a_divergence_equal_to_the_threshold_does_not_fire() -> None:
    base, rl = make({1: 0.6, 2: 0.4}), make({1: 0.3, 2: 0.7})
    js = float(js_divergence(base, rl)[0])
    assert not decided(base, rl, threshold=js).intervened.any()
    assert decided(base, rl, threshold=float(np.nextafter(js, 0))).intervened.all()


@settings(deadline=None)
@given(batches)
def test_following_alone_is_plain_sampling_of_the_primary(pair: tuple[Nuclei, Nuclei]) -> None:
    nuclei, num = pair[0], len(pair[0].size)
    decisions = follow(nuclei, *positions(num))
    assert decisions.token.tolist() == sample(nuclei, *positions(num)).tolist()
    assert not decisions.intervened.any()
    assert not decisions.effective.any()
    assert np.isnan(decisions.js).all()


@settings(deadline=None)
@given(batches)
def test_without_budget_a_pair_does_what_its_primary_does_alone(
    pair: tuple[Nuclei, Nuclei],
) -> None:
    base, rl = pair
    num = len(base.size)
    for forward, primary in ((True, base), (False, rl)):
        paired = decided(base, rl, forward, left=0)
        assert paired.token.tolist() == follow(primary, *positions(num)).token.tolist()


def test_every_field_of_a_decision_has_one_entry_a_row() -> None:
    decisions = decided(make({1: 1.0}, {2: 1.0}), make({1: 1.0}, {3: 1.0}))
    assert {len(getattr(decisions, field.name)) for field in fields(decisions)} == {2}


STOP = 1


def proposing(rule: Rule, other: dict[int, float], extrapolated: bool = False) -> Decisions:
    """One row whose primary takes token 2, under a rule that always intervenes with `other`."""
    draws = couple(
        make({2: 1.0}), make({3: 1.0} if extrapolated else other), np.array([True]), *positions(1)
    )
    return decide(rule, draws, np.array([0]), make(other) if extrapolated else None)


@pytest.mark.parametrize("extrapolated", [False, True])
@pytest.mark.parametrize(
    ("eos", "other", "token", "intervened"),
    [
        ("keep", {STOP: 1.0}, STOP, True),
        ("drop", {STOP: 1.0}, 2, False),
        ("drop", {5: 1.0}, 5, True),
        ("resample", {STOP: 1.0}, 2, False),
        ("resample", {STOP: 0.999, 7: 0.001}, 7, True),
        ("resample", {5: 1.0}, 5, True),
    ],
)
def test_a_stop_token_that_is_proposed_is_kept_dropped_or_drawn_again(
    eos: EosRule, other: dict[int, float], token: int, intervened: bool, extrapolated: bool
) -> None:
    decisions = proposing(Rule(eos=eos, stop_token_ids=(STOP,)), other, extrapolated)
    assert (decisions.token.tolist(), decisions.intervened.tolist()) == ([token], [intervened])


def test_the_primarys_own_stop_token_is_nobodys_proposal() -> None:
    draws = couple(make({STOP: 1.0}), make({STOP: 1.0}), np.array([True]), *positions(1))
    for eos in ("drop", "resample"):
        decisions = decide(Rule(eos=eos, stop_token_ids=(STOP,)), draws, np.array([0]))
        assert decisions.token.tolist() == [STOP]
        assert not decisions.intervened.any()


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=20
    )
)
def test_a_row_intervenes_where_the_criterion_fires_budget_is_left_and_the_window_is_open(
    rows: list[tuple[bool, int, int]],
) -> None:
    fired, left, position = (np.array(column) for column in zip(*rows, strict=True))
    expected = [n for n, (f, b, t) in enumerate(rows) if f and b > 0 and 3 <= t < 7]
    assert allowed_rows(Rule(start=3, stop=7), position, fired, left).tolist() == expected
