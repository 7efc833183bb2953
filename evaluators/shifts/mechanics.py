"""Mechanics of shifts: how RL reorders the tokens. Section 4 of arXiv 2603.22446.

The top token of one policy (`of`) is looked up under the other (`under`). Ranks start at 1;
probabilities and ranks are of the full distributions at temperature 1. Unless a function says
otherwise, it covers the measured positions of each direction with js > HIGH_DIVERGENCE.
"""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluators.cutoffs import IS_HIGH
from evaluators.database.run_tables import RunTables
from evaluators.shifts.overlap import NO_OVERLAP, Overlap, add, count_overlap
from evaluators.shifts.tidy import FLOAT, INT, TEXT, tidy

MAX_RANK = 10
RANK_BEYOND = MAX_RANK + 1  # stands for all ranks above MAX_RANK
TAIL_CUTOFFS = (0.5, 0.1, 0.05, 0.01, 0.001)

SIDES = (("rl", "base"), ("base", "rl"))  # (of, under)

_OVERLAP = {"direction": TEXT, "k": INT, "overlap": FLOAT, "positions": INT}
_RANKS = {
    "direction": TEXT, "of": TEXT, "under": TEXT, "rank": INT, "positions": INT, "share": FLOAT,
    "cumulative": FLOAT,
}  # fmt: skip
_TAIL = {
    "direction": TEXT,
    "of": TEXT,
    "under": TEXT,
    "cutoff": FLOAT,
    "below": FLOAT,
    "positions": INT,
}
_SHIFTS = {"direction": TEXT, "where": TEXT, "shift": TEXT, "positions": INT, "share": FLOAT}


def topk_overlap(run: RunTables) -> pa.Table:
    """Mean of |TopK_base & TopK_rl| / k for k = 1..K, at high divergence.

    Over the positions that have lists: lists are stored where js reached the run's
    record_threshold. For each k only pairs of lists with at least k tokens count.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    run.require("js", "topk_base", "topk_rl")
    sums: dict[str, Overlap] = {}
    for batch in run.batches(
        f"SELECT direction, topk_base, topk_rl FROM {run.measured} "
        f"WHERE {IS_HIGH} AND topk_base IS NOT NULL AND topk_rl IS NOT NULL"
    ):
        for direction in batch["direction"].unique().to_pylist():
            rows = np.flatnonzero(
                pc.equal(batch["direction"], direction).to_numpy(zero_copy_only=False)
            )
            overlap = count_overlap(batch["topk_base"], batch["topk_rl"], rows)
            sums[direction] = add(sums.get(direction, NO_OVERLAP), overlap)
    return tidy(
        [
            (direction, k, shared / (k * positions), positions)
            for direction in sorted(sums)
            for k, (shared, positions) in enumerate(
                zip(*(column.tolist() for column in sums[direction]), strict=True), 1
            )
        ],
        _OVERLAP,
    )


def top1_ranks(run: RunTables) -> pa.Table:
    """Rank of one policy's top token under the other, at high divergence.

    Returns:
        One row per direction, side and rank: 1 to MAX_RANK, then RANK_BEYOND for all above.
        `share` is of the positions of the direction and side; `cumulative` is the share of this
        rank and all before.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    counts = _rank_counts(run)
    sides = " UNION ALL ".join(
        f"SELECT direction, {index} AS side, '{of}' AS of, '{under}' AS under, of_{of} AS rank, "
        f"positions FROM {counts} WHERE high AND of_{of} IS NOT NULL"
        for index, (of, under) in enumerate(SIDES)
    )
    return tidy(
        run.query(f"""
            WITH sides AS ({sides}),
            ranks AS (SELECT unnest(range(1, {RANK_BEYOND + 1})) AS rank),
            wanted AS (SELECT * FROM (SELECT DISTINCT direction, side, of, under FROM sides),
                ranks),
            counted AS (SELECT direction, side, rank, sum(positions) AS positions FROM sides GROUP
                BY ALL)
            SELECT direction, of, under, rank, coalesce(positions, 0) AS positions,
                coalesce(positions, 0) / sum(positions) OVER whole AS share,
                coalesce(sum(positions) OVER (whole ORDER BY rank), 0) / sum(positions) OVER whole
                    AS cumulative
            FROM wanted LEFT JOIN counted USING (direction, side, rank)
            WINDOW whole AS (PARTITION BY direction, side) ORDER BY direction, side, rank
        """),
        _RANKS,
    )


def tail_probability(run: RunTables) -> pa.Table:
    """Share of high-divergence positions where one policy's top token is improbable in the other.

    Returns:
        One row per direction, side and cutoff. `below` is the share of the positions where `under`
        gives the top token of `of` a probability less than `cutoff`; `positions` counts those where
        that probability is stored.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    run.require("js", "logp_base_of_top1_rl", "logp_rl_of_top1_base")
    logps = [f"logp_{under}_of_top1_{of}" for of, under in SIDES]
    num_below = [
        [f"count_if({logp} < {log(cutoff)!r}::DOUBLE)::BIGINT" for cutoff in TAIL_CUTOFFS]
        for logp in logps
    ]
    counts = ", ".join(
        f"[count_if(NOT isnan({logp}))::BIGINT, {', '.join(of_cutoffs)}]"
        for logp, of_cutoffs in zip(logps, num_below, strict=True)
    )
    sides = run.query(
        f"SELECT direction, unnest([{counts}]) AS counts, unnest(range({len(SIDES)})) AS side "
        f"FROM {run.measured} WHERE {IS_HIGH} GROUP BY direction ORDER BY direction, side"
    )
    rows: list[tuple[Any, ...]] = []
    for side in sides.to_pylist():
        positions, *of_cutoffs = side["counts"]
        if positions:
            rows += [
                (side["direction"], *SIDES[side["side"]], cutoff, below / positions, positions)
                for cutoff, below in zip(TAIL_CUTOFFS, of_cutoffs, strict=True)
            ]
    return tidy(rows, _TAIL)


def shift_classes(run: RunTables) -> pa.Table:
    """Shares of unshifted, marginal and shifted positions.

    The rank of RL's top token under base is 1 (unshifted), 2 or 3 (marginal), or more (shifted):
    the classes of Lin et al. 2023, "The Unlocking Spell on Base LLMs" (arXiv 2312.01552), with RL
    for the aligned model and RL's top token for the decoded token.

    Returns:
        One row per direction, set of positions and class. `where` is "all" (the measured positions)
        or "high" (those of high divergence).

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    counts = _rank_counts(run)
    return tidy(
        run.query(f"""
            WITH ranks AS (
                SELECT direction, 0 AS subset, of_rl, positions FROM {counts}
                    WHERE of_rl IS NOT NULL
                UNION ALL SELECT direction, 1, of_rl, positions FROM {counts}
                    WHERE of_rl IS NOT NULL AND high
            ),
            wanted AS (SELECT DISTINCT direction, subset, unnest(range(3)) AS shift FROM ranks),
            counted AS (
                SELECT direction, subset, CASE WHEN of_rl <= 1 THEN 0 WHEN of_rl <= 3 THEN 1 ELSE 2
                    END AS shift,
                    sum(positions) AS positions
                FROM ranks GROUP BY ALL
            )
            SELECT direction, ['all', 'high'][subset + 1] AS where,
                ['unshifted', 'marginal', 'shifted'][shift + 1] AS shift, coalesce(positions, 0) AS
                    positions,
                coalesce(positions, 0) / sum(positions) OVER (PARTITION BY direction, subset) AS
                    share
            FROM wanted LEFT JOIN counted USING (direction, subset, shift)
            ORDER BY direction, subset, wanted.shift
        """),
        _SHIFTS,
    )


def _rank_counts(run: RunTables) -> str:
    """Name of a table: positions by direction, whether high, and both ranks up to RANK_BEYOND.

    `of_rl` is the rank of RL's top token under base, `of_base` that of base's under RL.
    """
    run.require("js", "rank_base_of_top1_rl", "rank_rl_of_top1_base")
    of_rl, of_base = (
        f"CASE WHEN {rank} > {MAX_RANK} THEN {RANK_BEYOND} ELSE {rank} END"
        for rank in ("rank_base_of_top1_rl", "rank_rl_of_top1_base")
    )
    return run.kept(
        "rank_counts",
        f"SELECT direction, {IS_HIGH} AS high, {of_rl} AS of_rl, {of_base} AS of_base, "
        f"count(*) AS positions FROM {run.measured} GROUP BY ALL",
    )
