"""The noise: uniform, independent in every direction, and the same wherever and however it is
computed.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.noise import gumbel, stream_key, uniform

GOLDEN, MASK = 0x9E3779B97F4A7C15, 2**64 - 1
Grid = np.ndarray[Any, np.dtype[np.float64]]

keys = st.integers(0, MASK)
positions = st.integers(0, 2**31 - 1)
tokens = st.integers(0, 2**31 - 1)


def mix(x: int) -> int:
    """SplitMix64's finaliser on Python's integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def unmix(x: int) -> int:
    """The number that `mix` makes `x` of."""
    x = x ^ (x >> 31) ^ (x >> 62)
    x = x * pow(0x94D049BB133111EB, -1, 2**64) & MASK
    x = x ^ (x >> 27) ^ (x >> 54)
    x = x * pow(0xBF58476D1CE4E5B9, -1, 2**64) & MASK
    return x ^ (x >> 30) ^ (x >> 60)


def one(key: int, position: int, token: int) -> float:
    return float(uniform(np.array([key], np.uint64), np.array([position]), np.array([token]))[0])


def grid(num_samples: int, num_positions: int, num_tokens: int) -> Grid:
    """Uniform numbers [samples, positions, tokens] of one problem."""
    key = np.array([stream_key(0, "problem", sample) for sample in range(num_samples)], np.uint64)
    return uniform(key[:, None, None], np.arange(num_positions)[:, None], np.arange(num_tokens))


@settings(deadline=None)
@given(keys, positions, tokens)
def test_it_is_splitmix_of_key_position_and_token(key: int, position: int, token: int) -> None:
    bits = mix(mix(key + position * GOLDEN & MASK) + (token + 1) * GOLDEN & MASK)
    assert one(key, position, token) == pytest.approx(bits / 2**64, abs=2.0**-51)


@settings(deadline=None)
@given(keys, positions, tokens)
def test_uniform_numbers_lie_strictly_between_zero_and_one(
    key: int, position: int, token: int
) -> None:
    assert 0 < one(key, position, token) < 1


@pytest.mark.parametrize("bits", [0, 1, 2**63, MASK - 1, MASK])
def test_not_even_the_most_extreme_hash_leaves_the_open_interval(bits: int) -> None:
    key = unmix(unmix(bits) - GOLDEN & MASK)  # position 0, token 0 of this key hash to `bits`
    assert mix(mix(key) + GOLDEN & MASK) == bits
    assert 0 < one(key, 0, 0) < 1
    assert np.isfinite(gumbel(np.array([key], np.uint64), np.array([0]), np.array([0])))


def test_uniform_numbers_pass_a_kolmogorov_smirnov_test() -> None:
    values = np.sort(grid(4, 100, 1000).ravel())
    rank = np.arange(1, len(values) + 1) / len(values)
    distance = max(np.abs(values - rank).max(), np.abs(values - rank + 1 / len(values)).max())
    assert distance < 1.63 / np.sqrt(len(values))  # 1 % level


def test_gumbel_noise_has_the_mean_the_variance_and_the_quantiles_of_the_standard_gumbel() -> None:
    key = np.array([stream_key(1, "p", 0)], np.uint64)
    values = gumbel(key, np.arange(400)[:, None], np.arange(1000)).ravel()
    standard_error = np.pi / np.sqrt(6 * len(values))
    assert values.mean() == pytest.approx(np.euler_gamma, abs=4 * standard_error)
    assert values.var() == pytest.approx(np.pi**2 / 6, rel=0.02)
    for quantile in (0.01, 0.25, 0.5, 0.75, 0.99):
        assert (values < -np.log(-np.log(quantile))).mean() == pytest.approx(quantile, abs=0.003)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["sample", "position", "token"])
@pytest.mark.parametrize("lag", [1, 2, 16])
def test_neighbours_along_every_axis_are_uncorrelated(axis: int, lag: int) -> None:
    values = np.moveaxis(grid(64, 64, 64), axis, 0)
    a, b = values[lag:].ravel(), values[:-lag].ravel()
    assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(a.size)
    assert abs(np.corrcoef(a**8, b**8)[0, 1]) < 4 / np.sqrt(a.size)  # the upper tail decides tokens


def test_values_never_repeat_within_a_problem() -> None:
    values = grid(8, 100, 500)
    assert len(np.unique(values)) == values.size


@settings(deadline=None)
@given(st.lists(st.tuples(keys, positions, tokens), min_size=1, max_size=40), st.randoms())
def test_a_value_does_not_depend_on_what_else_is_in_the_batch(
    entries: list[tuple[int, int, int]], random: Any
) -> None:
    alone = {entry: one(*entry) for entry in entries}
    random.shuffle(entries)
    key, position, token = zip(*entries, strict=True)
    together = uniform(np.array(key, np.uint64), np.array(position), np.array(token))
    assert together.tolist() == [alone[entry] for entry in entries]


def test_broadcasting_gives_the_same_values_as_one_call_an_entry() -> None:
    values = grid(2, 3, 4)
    for sample, position, token in np.ndindex(values.shape):
        assert values[sample, position, token] == one(
            stream_key(0, "problem", sample), position, token
        )


def test_every_seed_problem_and_sample_has_its_own_key() -> None:
    names = ["p", "p1", "p11", "1", "11", "", "p\0001", "\N{GREEK SMALL LETTER PI}"]
    keyed = [
        stream_key(*which) for which in itertools.product((0, 1, 11, -1), names, (0, 1, 11, 111))
    ]
    assert len(set(keyed)) == len(keyed)
    assert all(0 <= key < 2**64 for key in keyed)


def test_the_noise_is_what_it_was_when_runs_were_made_with_it() -> None:
    """Whoever changes these numbers changes every response: runs could not be resumed, nor compared
    with old ones.
    """
    assert stream_key(0, "aime24-1", 0) == 17_231_263_175_618_540_479
    key = np.array([17_231_263_175_618_540_479], np.uint64)
    values = gumbel(key, np.array([0, 0, 1, 7999]), np.array([0, 1, 0, 151_935]))
    np.testing.assert_allclose(
        values,
        [1.3966570973513346, -0.6385900844579858, 0.15251668938751362, -1.583216684264745],
        rtol=1e-14,
    )
