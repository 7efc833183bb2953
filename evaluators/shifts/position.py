"""Position: js against the relative position t / length in the response.

Section 2 of arXiv 2603.22446, which finds high divergence at the start.
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
    """Mean and quantiles of js, in nats, in NUM_BINS bins of the relative position.

    Quantiles are the inverted CDF, within 0.14 % (see `grid`); the mean is exact.

    Returns:
        One row per direction and bin that has measured positions. `start` and `stop` are the edges
        of the bin, 0 to 1.

    Raises:
        MissingColumns: The run did not record a column that this needs.
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
    for (direction, index), js in groups(counts, ["direction", "bin"]):
        quantiles = js.quantiles(list(QUANTILES.values())).tolist()
        edges = (index / NUM_BINS, (index + 1) / NUM_BINS)
        rows.append((direction, index, *edges, js.num_positions, js.mean, *quantiles))
    return tidy(rows, _COLUMNS)
