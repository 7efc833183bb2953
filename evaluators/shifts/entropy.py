"""Entropy of the policies at low and at high divergence: section 2 of arXiv 2603.22446.

Entropies are of the full distributions at temperature 1, in nats, in bins of 0.1 nats from 0; the
last bin, from 25.5 nats, also holds everything above. Every function covers the measured positions
of each direction whose two entropies are finite.
"""

from __future__ import annotations

import pyarrow as pa

from engine.core import POLICIES
from evaluators.cutoffs import IS_HIGH, IS_NEAR_ZERO
from evaluators.database.run_tables import RunTables
from evaluators.shifts.tidy import FLOAT, INT, TEXT, tidy

BINS_PER_NAT = 10
MAX_BIN = 255  # even 2^36 tokens have an entropy of at most 25 nats
MAX_SEQUENCES = 5_000  # per direction
DIVERGENCES = ("low", "middle", "high")

_HISTOGRAM = {
    "direction": TEXT, "policy": TEXT, "divergence": TEXT, "entropy_low": FLOAT,
    "entropy_high": FLOAT, "positions": INT, "share": FLOAT,
}  # fmt: skip
_JOINT = {
    "direction": TEXT, "entropy_base_low": FLOAT, "entropy_rl_low": FLOAT, "positions": INT,
}  # fmt: skip
_SEQUENCES = {
    "direction": TEXT, "problem": TEXT, "sample": INT, "budget": INT, "positions": INT,
    "js_mean": FLOAT, "entropy_base_mean": FLOAT, "entropy_rl_mean": FLOAT,
}  # fmt: skip


def entropy_histogram(run: RunTables) -> pa.Table:
    """Histogram of the entropy of each policy at low, middle and high divergence.

    Low is js <= NEAR_ZERO, high is js > HIGH_DIVERGENCE. For each class that has positions, the
    bins run without a gap from 0 to the largest that the policy reaches in any class.

    Returns:
        One row per direction, policy, class and bin; `share` is of the positions of the class.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    joint = _joint_counts(run)
    return tidy(
        run.query(f"""
            WITH single AS (
                SELECT direction, 'base' AS policy, class, base AS bin, positions FROM {joint}
                UNION ALL SELECT direction, 'rl', class, rl, positions FROM {joint}
            ),
            counted AS (SELECT direction, policy, class, bin, sum(positions) AS positions FROM
                single GROUP BY ALL),
            wanted AS (
                SELECT direction, policy, unnest(list(DISTINCT class)) AS class, max(bin) AS last
                FROM counted GROUP BY direction, policy
            ),
            bins AS (SELECT direction, policy, class, unnest(range(last + 1)) AS bin FROM wanted)
            SELECT direction, policy, ['low', 'middle', 'high'][class + 1] AS divergence,
                bin / {BINS_PER_NAT} AS entropy_low, (bin + 1) / {BINS_PER_NAT} AS entropy_high,
                coalesce(positions, 0) AS positions,
                coalesce(positions, 0) / sum(positions) OVER (PARTITION BY direction, policy,
                    class) AS share
            FROM bins LEFT JOIN counted USING (direction, policy, class, bin)
            ORDER BY direction, policy, class, bin
        """),
        _HISTOGRAM,
    )


def entropy_joint(run: RunTables) -> pa.Table:
    """Number of positions by the entropies of both policies; only bins with positions.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    return tidy(
        run.query(f"""
            SELECT direction, base / {BINS_PER_NAT} AS entropy_base_low, rl / {BINS_PER_NAT} AS
                entropy_rl_low,
                sum(positions) AS positions
            FROM {_joint_counts(run)} GROUP BY ALL ORDER BY ALL
        """),
        _JOINT,
    )


def sequences(run: RunTables) -> pa.Table:
    """Means of js and of both entropies over each trajectory's measured positions, in nats.

    At most MAX_SEQUENCES trajectories per direction: those whose problem and sample have the
    smallest MD5, so that every call and both directions choose the same ones.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    run.require("js", "entropy_base", "entropy_rl")
    return tidy(
        run.query(f"""
            SELECT direction, problem, sample, any_value(budget) AS budget, count(*) AS positions,
                avg(js::DOUBLE) AS js_mean, avg(entropy_base::DOUBLE) AS entropy_base_mean,
                avg(entropy_rl::DOUBLE) AS entropy_rl_mean
            FROM {run.measured} WHERE isfinite(entropy_base) AND isfinite(entropy_rl)
            GROUP BY direction, problem, sample
            QUALIFY row_number() OVER (PARTITION BY direction ORDER BY md5(concat(problem, ' ',
                sample)))
                <= {MAX_SEQUENCES}
            ORDER BY direction, problem, sample
        """),
        _SEQUENCES,
    )


def _joint_counts(run: RunTables) -> str:
    """Name of a table: positions by direction, class and the bins of both entropies.

    A class is an index in DIVERGENCES.
    """
    run.require("js", "entropy_base", "entropy_rl")
    base, rl = (
        f"least(greatest(floor(entropy_{policy}::DOUBLE * {BINS_PER_NAT}), 0), "
        f"{MAX_BIN})::UTINYINT AS {policy}"
        for policy in POLICIES
    )
    return run.kept(
        "entropy_counts",
        f"""
            SELECT direction, CASE WHEN {IS_NEAR_ZERO} THEN 0 WHEN {IS_HIGH} THEN 2 ELSE 1
                END::UTINYINT AS class,
                {base}, {rl}, count(*) AS positions
            FROM {run.measured} WHERE isfinite(entropy_base) AND isfinite(entropy_rl) GROUP BY ALL
        """,
    )
