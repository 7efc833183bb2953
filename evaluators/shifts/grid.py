"""JS counted on a fine logarithmic grid: distributions of any number of positions in a few thousand
counts.

The key of a value is floor(256 log2 js): 256 keys an octave. Zero has a key of its own and all
below 2^-40 nats share one. The value of a key is its geometric middle, which differs from any value
in it by at most 0.14 % (half a key is a factor 2^(1/512)). Edges at 2^(n/4) fall between keys.
Counts and means are exact.

Dimensions: K keys, Q quantiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from engine.arrays import Floats, Ints
from evaluators.cutoffs import IS_HIGH, IS_NEAR_ZERO
from evaluators.database.run_tables import RunTables

KEYS_PER_OCTAVE = 256
LOWEST_KEY = -40 * KEYS_PER_OCTAVE
ZERO_KEY = LOWEST_KEY - 1

# The same for a column `js` in SQL.
KEY = (
    f"CASE WHEN js > 0 THEN greatest(floor(log2(js::DOUBLE) * {KEYS_PER_OCTAVE}),"
    f" {LOWEST_KEY})::SMALLINT ELSE {ZERO_KEY}::SMALLINT END"
)
# Columns of a grouped query that `groups` reads, beside `key`.
TOTALS = "count(*) AS positions, sum(js::DOUBLE) AS total"


class Bin(NamedTuple):
    """Positions with low <= js < high, in nats; the bin of js = 0 has 0 for both."""

    js_low: float
    js_high: float
    positions: int


class JsCounts(NamedTuple):
    """A distribution of js: ascending keys [K], their positions [K], and the sum of all js in
    nats.
    """

    keys: Ints
    positions: Ints
    total: float

    @property
    def num_positions(self) -> int:
        return int(self.positions.sum())

    @property
    def mean(self) -> float:
        """In nats, exact."""
        return self.total / self.num_positions

    def quantiles(self, shares: Sequence[float]) -> Floats:
        """The inverted CDF at `shares` [Q]: the smallest value whose cumulative share is at least
        that; nats.

        As `numpy.quantile(method="inverted_cdf")` of values rounded to the middle of their key.
        """
        cumulative = np.cumsum(self.positions)
        index = np.searchsorted(cumulative, np.asarray(shares) * cumulative[-1])
        return middle(self.keys[index])

    def histogram(self, bins_per_octave: int) -> list[Bin]:
        """The bin of zeros, then all from the smallest to the largest that is not empty."""
        zero = self.keys == ZERO_KEY
        numbers = self.keys[~zero] // (KEYS_PER_OCTAVE // bins_per_octave)
        bins = [Bin(0.0, 0.0, int(self.positions[zero].sum()))]
        if len(numbers):
            first = int(numbers.min())
            counts = np.bincount(numbers - first, self.positions[~zero]).astype(np.int64)
            edges = np.exp2((first + np.arange(len(counts) + 1)) / bins_per_octave).tolist()
            bins += map(Bin, edges[:-1], edges[1:], counts.tolist())
        return bins


def keys(js: NDArray[np.float32]) -> Ints:
    """The keys of js [...] in nats."""
    found = np.full(js.shape, ZERO_KEY, np.int64)
    some = js > 0
    found[some] = np.maximum(
        np.floor(np.log2(js[some].astype(np.float64)) * KEYS_PER_OCTAVE), LOWEST_KEY
    )
    return found


def middle(of_keys: Ints) -> Floats:
    """The values that keys [...] stand for, in nats."""
    return np.where(of_keys == ZERO_KEY, 0.0, np.exp2((of_keys + 0.5) / KEYS_PER_OCTAVE))


def js_counts(run: RunTables) -> str:
    """Name of a table of direction, key, TOTALS, and how many of these positions are near zero or
    high.
    """
    run.require("js")
    ours = f"count_if({IS_NEAR_ZERO})::BIGINT AS near_zero, count_if({IS_HIGH})::BIGINT AS high"
    sql = f"SELECT direction, {KEY} AS key, {TOTALS}, {ours} FROM {run.measured} GROUP BY ALL"
    return run.kept("js_counts", sql)


def groups(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], JsCounts]]:
    """The distribution of each group of rows with equal `names`, in their order; `table` has key
    and TOTALS.
    """
    ordered = table.sort_by([(name, "ascending") for name in (*names, "key")])
    key, positions, total = (ordered[name].to_numpy() for name in ("key", "positions", "total"))
    counted = ordered.group_by(list(names), use_threads=False).aggregate([([], "count_all")])
    found = counted.sort_by(
        [(name, "ascending") for name in names]
    )  # groups come in no order that Arrow promises
    stops = np.cumsum(found["count_all"].to_numpy())
    for place, stop in enumerate(stops.tolist()):
        rows = slice(stops[place - 1] if place else 0, stop)
        group = tuple(found[name][place].as_py() for name in names)
        yield (
            group,
            JsCounts(
                key[rows].astype(np.int64),
                positions[rows].astype(np.int64),
                float(total[rows].sum()),
            ),
        )
