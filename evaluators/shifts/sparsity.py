"""Sparsity: the distribution of js over positions.

Section 2 of arXiv 2603.22446, which finds that most positions are near zero. Every function covers
the measured positions of each direction; js is in nats. A direction without measured positions has
no rows.
"""

from __future__ import annotations

import pyarrow as pa

from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.database.run_tables import RunTables
from evaluators.database.views import IS_MEASURED
from evaluators.shifts.grid import groups, js_counts
from evaluators.shifts.tidy import FLOAT, INT, TEXT, tidy

BINS_PER_OCTAVE = 4
PERCENTILES = (*(half / 2 for half in range(200)), 99.9, 99.99, 100.0)
CUTOFFS = (0.0, 1e-4, NEAR_ZERO, HIGH_DIVERGENCE, 0.2, 0.5)

_HISTOGRAM = {
    "direction": TEXT,
    "js_low": FLOAT,
    "js_high": FLOAT,
    "positions": INT,
    "share": FLOAT,
}
_PERCENTILES = {"direction": TEXT, "percentile": FLOAT, "js": FLOAT}
_SHARES = {
    "direction": TEXT, "cutoff": FLOAT, "positions": INT, "at_most": FLOAT, "above": FLOAT,
    "tokens": INT,
}  # fmt: skip


def js_histogram(run: RunTables) -> pa.Table:
    """Histogram of js: exactly 0, then quarter octaves [2^(n/4), 2^((n+1)/4)) without a gap.

    Returns:
        One row per direction and bin; `share` is of the positions of the direction.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    return tidy(
        [
            (direction, *js_bin, js_bin.positions / counts.num_positions)
            for (direction,), counts in groups(run.query(f"FROM {js_counts(run)}"), ["direction"])
            for js_bin in counts.histogram(BINS_PER_OCTAVE)
        ],
        _HISTOGRAM,
    )


def js_percentiles(run: RunTables) -> pa.Table:
    """The percentile curve of js: the inverted CDF, within 0.14 % (see `grid`).

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    shares = [percentile / 100 for percentile in PERCENTILES]
    return tidy(
        [
            (direction, percentile, js)
            for (direction,), counts in groups(run.query(f"FROM {js_counts(run)}"), ["direction"])
            for percentile, js in zip(PERCENTILES, counts.quantiles(shares).tolist(), strict=True)
        ],
        _PERCENTILES,
    )


def js_shares(run: RunTables) -> pa.Table:
    """Exact shares of the positions with js <= cutoff and js > cutoff, for each of CUTOFFS.

    Returns:
        One row per direction and cutoff; `tokens` counts all tokens of the direction's arm,
        measured or not.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    run.require("js")
    counts = ", ".join(f"count_if({IS_MEASURED} AND js <= {cutoff}::DOUBLE)" for cutoff in CUTOFFS)
    return tidy(
        run.query(f"""
            WITH counted AS (
                SELECT direction, count(*) AS tokens, count_if({IS_MEASURED}) AS positions,
                    unnest([{", ".join(map(str, CUTOFFS))}]::DOUBLE[]) AS cutoff,
                        unnest([{counts}]) AS below
                FROM {run.arm_tokens} GROUP BY direction
            )
            SELECT direction, cutoff, positions, below / positions AS at_most,
                (positions - below) / positions AS above, tokens
            FROM counted WHERE positions > 0 ORDER BY ALL
        """),
        _SHARES,
    )
