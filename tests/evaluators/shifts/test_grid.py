"""The logarithmic grid: keys are the same in SQL and NumPy, quantiles those of NumPy, its bins
without a gap.
"""

from __future__ import annotations

from itertools import pairwise

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from evaluators.shifts.grid import KEY, LOWEST_KEY, ZERO_KEY, JsCounts, groups, keys, middles
from tests.support.shift_runs import LN2

SHARES = (0.0, 0.005, 0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0)

js_values = st.lists(
    st.one_of(st.sampled_from([0.0, LN2, 0.125, 0.5]), st.floats(0, LN2, width=32)),
    min_size=1,
    max_size=300,
).map(lambda values: np.array(values, np.float32))
inside_the_grid = st.lists(
    st.one_of(st.just(0.0), st.floats(2**-40, LN2, width=32)), min_size=1, max_size=300
).map(lambda values: np.array(values, np.float32))


def counted(js: NDArray[np.float32]) -> JsCounts:
    return JsCounts(*np.unique(keys(js), return_counts=True), float(js.sum(dtype=np.float64)))


@given(js_values)
def test_quantiles_are_the_inverted_cdf_of_values_rounded_to_the_grid(
    js: NDArray[np.float32],
) -> None:
    expected = np.quantile(middles(keys(js)), SHARES, method="inverted_cdf")
    assert np.array_equal(counted(js).quantiles(SHARES), expected)


@given(inside_the_grid)
def test_quantiles_of_the_values_themselves_are_met_within_the_resolution(
    js: NDArray[np.float32],
) -> None:
    expected = np.quantile(js.astype(np.float64), SHARES, method="inverted_cdf")
    assert np.allclose(counted(js).quantiles(SHARES), expected, rtol=0.0014, atol=0)


@given(js_values)
def test_every_value_lies_in_the_bin_that_counts_it(js: NDArray[np.float32]) -> None:
    for bins_per_octave in (2, 4):
        zero, *bins = counted(js).histogram(bins_per_octave)
        assert (zero.js_low, zero.js_high, zero.positions) == (0, 0, int(np.count_nonzero(js == 0)))
        assert sum(found.positions for found in bins) == np.count_nonzero(js)
        assert all(below.js_high == above.js_low for below, above in pairwise(bins))
        for found in bins:
            lowest = (
                found.js_low if found.js_low > 2.0**-40 else 0
            )  # which also counts what is below the grid
            inside = np.count_nonzero((js > 0) & (js >= lowest) & (js < found.js_high))
            assert found.positions == inside
        assert not bins or (bins[0].positions and bins[-1].positions)


def test_keys_are_the_same_in_sql() -> None:
    rng = np.random.default_rng(0)
    some = np.array(
        [0, LN2, 0.1, 0.01, 1e-4, 2**-40, 1e-13, 1e-30, *2.0 ** -np.arange(30)], np.float32
    )
    js = np.concatenate([some, np.exp(rng.normal(-5, 4, 50_000)).clip(0, LN2).astype(np.float32)])
    table = pa.table({"js": js})
    with duckdb.connect() as database:
        database.register("rows", table)
        found = database.sql(f"SELECT {KEY} AS key FROM rows").to_arrow_table()["key"].to_numpy()
    assert np.array_equal(found, keys(js))


def test_zero_and_the_smallest_values_have_keys_of_their_own() -> None:
    assert keys(np.array([0, 1e-30, 2**-40], np.float32)).tolist() == [
        ZERO_KEY,
        LOWEST_KEY,
        LOWEST_KEY,
    ]
    assert middles(np.array([ZERO_KEY]))[0] == 0.0


def test_a_histogram_by_hand() -> None:
    js = np.array([0, 0, 0.5, 0.25, LN2], np.float32)
    bins = counted(js).histogram(2)
    edges = [0.25, 0.5**1.5, 0.5, 0.5**0.5]
    expected = [(0, 0, 2), *zip(edges[:-1], edges[1:], (1, 0, 2), strict=True)]
    assert [tuple(found) for found in bins] == [pytest.approx(row) for row in expected]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 400))
def test_many_small_groups_get_each_its_own_rows_in_order(
    seed: int, num_groups: int, num_rows: int
) -> None:
    rng = np.random.default_rng(seed)
    expected: dict[tuple[str, int, int], dict[int, int]] = {}
    for place in rng.integers(0, num_groups, num_rows).tolist():
        group = (["forward", "reverse"][place % 2], int(rng.integers(0, 9)), place * 7919 % 251)
        expected.setdefault(group, {})[int(rng.integers(-99, 0))] = int(rng.integers(1, 1000))
    rows = [
        (*group, *count, float(place))
        for place, (group, of) in enumerate(expected.items())
        for count in of.items()
    ]
    names = ("direction", "rank", "token", "key", "positions", "total")
    columns = zip(*(rows[place] for place in rng.permutation(len(rows))), strict=True)
    table = pa.table(dict(zip(names, map(list, columns), strict=True)))
    found = list(groups(table, names[:3]))
    assert [group for group, _ in found] == sorted(expected)
    for group, counts in found:
        assert (
            dict(zip(counts.keys.tolist(), counts.positions.tolist(), strict=True))
            == expected[group]
        )
