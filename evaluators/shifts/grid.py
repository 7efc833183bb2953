"""JS on a fine logarithmic grid: a distribution over any number of positions in few counts.

The key of a value is floor(256 log2 js), so there are 256 keys per octave. Zero has its own key,
and all values below 2^-40 nats share one. A key stands for its geometric middle, which differs from
any value of the key by at most 0.14 % (half a key is a factor of 2^(1/512)). Edges at 2^(n/4) fall
between keys. Counts and means are exact.

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

# SQL of the key of a column `js`.
KEY = (
    f"CASE WHEN js > 0 THEN greatest(floor(log2(js::DOUBLE) * {KEYS_PER_OCTAVE}),"
    f" {LOWEST_KEY})::SMALLINT ELSE {ZERO_KEY}::SMALLINT END"
)
# SQL of the columns of a grouped query that `groups` reads, besides `key`.
TOTALS = "count(*) AS positions, sum(js::DOUBLE) AS total"


class Bin(NamedTuple):
    """Number of positions with js_low <= js < js_high, in nats; both are 0 in the bin of js = 0."""

    js_low: float
    js_high: float
    positions: int


class JsCounts(NamedTuple):
    """A distribution of js."""

    keys: Ints
    """[K], ascending."""
    positions: Ints
    """Number of positions of each key [K]."""
    total: float
    """Sum of js over all positions, in nats."""

    @property
    def num_positions(self) -> int:
        """The number of positions of all keys."""
        return int(self.positions.sum())

    @property
    def mean(self) -> float:
        """The exact mean of js, in nats."""
        return self.total / self.num_positions

    def quantiles(self, shares: Sequence[float]) -> Floats:
        """The inverted CDF: for each share, the smallest js whose cumulative share reaches it.

        The same as `numpy.quantile(method="inverted_cdf")` of values rounded to their key's middle.

        Args:
            shares: Cumulative shares [Q], 0 to 1.

        Returns:
            Values of js [Q], in nats.
        """
        cumulative = np.cumsum(self.positions)
        index = np.searchsorted(cumulative, np.asarray(shares) * cumulative[-1])
        return middles(self.keys[index])

    def histogram(self, bins_per_octave: int) -> list[Bin]:
        """The bin of js = 0, then all bins from the smallest to the largest that is not empty."""
        zero = self.keys == ZERO_KEY
        bin_numbers = self.keys[~zero] // (KEYS_PER_OCTAVE // bins_per_octave)
        bins = [Bin(0.0, 0.0, int(self.positions[zero].sum()))]
        if len(bin_numbers):
            first = int(bin_numbers.min())
            counts = np.bincount(bin_numbers - first, self.positions[~zero]).astype(np.int64)
            edges = np.exp2((first + np.arange(len(counts) + 1)) / bins_per_octave).tolist()
            bins += map(Bin, edges[:-1], edges[1:], counts.tolist())
        return bins


def keys(js: NDArray[np.float32]) -> Ints:
    """The keys of js [...], which is in nats."""
    js_keys = np.full(js.shape, ZERO_KEY, np.int64)
    positive = js > 0
    js_keys[positive] = np.maximum(
        np.floor(np.log2(js[positive].astype(np.float64)) * KEYS_PER_OCTAVE), LOWEST_KEY
    )
    return js_keys


def middles(js_keys: Ints) -> Floats:
    """The values of js that keys [...] stand for: their geometric middles, in nats."""
    return np.where(js_keys == ZERO_KEY, 0.0, np.exp2((js_keys + 0.5) / KEYS_PER_OCTAVE))


def js_counts(run: RunTables) -> str:
    """Name of a table of direction, key, TOTALS, and the numbers of near-zero and high positions.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    run.require("js")
    class_counts = (
        f"count_if({IS_NEAR_ZERO})::BIGINT AS near_zero, count_if({IS_HIGH})::BIGINT AS high"
    )
    sql = (
        f"SELECT direction, {KEY} AS key, {TOTALS}, {class_counts} FROM {run.measured} GROUP BY ALL"
    )
    return run.kept("js_counts", sql)


def groups(table: pa.Table, names: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], JsCounts]]:
    """The distribution of js of each group of rows.

    Args:
        table: The columns `names`, `key` and TOTALS.
        names: The columns that are equal within a group.

    Yields:
        The values of `names` and the distribution, in the order of the values.
    """
    ordered = table.sort_by([(name, "ascending") for name in (*names, "key")])
    key, positions, total = (ordered[name].to_numpy() for name in ("key", "positions", "total"))
    counted = ordered.group_by(list(names), use_threads=False).aggregate([([], "count_all")])
    # Arrow promises no order of groups.
    sizes = counted.sort_by([(name, "ascending") for name in names])
    stops = np.cumsum(sizes["count_all"].to_numpy())
    for index, stop in enumerate(stops.tolist()):
        rows = slice(stops[index - 1] if index else 0, stop)
        group = tuple(sizes[name][index].as_py() for name in names)
        counts = JsCounts(
            key[rows].astype(np.int64), positions[rows].astype(np.int64), float(total[rows].sum())
        )
        yield group, counts
