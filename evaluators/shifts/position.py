"""Position: js against where in the response it is, t / length. Section 2 of arXiv 2603.22446: high
at the start.
"""

from __future__ import annotations

import pyarrow as pa

from evaluators.database.run_tables import RunTables
from evaluators.shifts.grid import KEY, TOTALS, groups
from evaluators.shifts.tidy import FLOAT, INT, TEXT, tidy

NUM_BINS = 50
QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}

_COLUMNS = {
    "direction": TEXT, "bin": INT, "start": FLOAT, "stop": FLOAT, "positions": INT, "mean": FLOAT,
    **dict.fromkeys(QUANTILES, FLOAT),
}  # fmt: skip


def js_by_position(run: RunTables) -> pa.Table:
    """Mean and quantiles of js in nats at floor(50 position / length), for each bin that has
    measured positions.

    start, stop: the bin's edges in t / length. Quantiles are the inverted CDF, within 0.14 % (see
    `grid`); the mean is exact. Raises MissingColumns.
    """
    run.require("js")
    counts = run.query(f"""
        SELECT direction, ({NUM_BINS} * position::BIGINT // length)::SMALLINT AS bin, {KEY} AS key,
            {TOTALS}
        FROM {run.measured}
        JOIN (SELECT problem, sample, direction, max(tokens) AS length FROM {run.arm_responses}
            GROUP BY ALL)
            USING (problem, sample, direction)
        WHERE position BETWEEN 0 AND length - 1
        GROUP BY ALL
    """)
    rows = []
    for (direction, place), found in groups(counts, ["direction", "bin"]):
        quantiles = found.quantiles(list(QUANTILES.values())).tolist()
        edges = (place / NUM_BINS, (place + 1) / NUM_BINS)
        rows.append((direction, place, *edges, found.num_positions, found.mean, *quantiles))
    return tidy(rows, _COLUMNS)
