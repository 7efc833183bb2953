"""Mechanics: what RL does to the ranking of tokens where it shifts them. Section 4 of arXiv
2603.22446.

The top token of one policy (`of`) is looked up under the other (`under`). Ranks start at 1;
probabilities and ranks are of the full distributions at temperature 1. Over the measured positions
of each direction with js > HIGH_DIVERGENCE, or over all where it says so.
"""

from __future__ import annotations

from math import log

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluators.cutoffs import IS_HIGH
from evaluators.database.run_tables import RunTables
from evaluators.shifts.overlap import NOTHING, Overlap, add, count_overlap
from evaluators.shifts.tidy import FLOAT, INT, TEXT, tidy

MAX_RANK = 10  # larger ones are counted together, as MAX_RANK + 1
TAIL_CUTOFFS = (0.5, 0.1, 0.05, 0.01, 0.001)

_SIDES = (("rl", "base"), ("base", "rl"))
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
    """Mean of |TopK_base & TopK_rl| / k for k = 1..K over the positions of high divergence that
    have lists.

    Lists are stored where js reached the run's record_threshold; for each k only pairs of at least
    k tokens count. Raises MissingColumns.
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
            found = count_overlap(batch["topk_base"], batch["topk_rl"], rows)
            sums[direction] = add(sums.get(direction, NOTHING), found)
    return tidy(
        [
            (direction, k, shared / (k * positions), positions)
            for direction in sorted(sums)
            for k, (shared, positions) in enumerate(
                zip(*(part.tolist() for part in sums[direction]), strict=True), 1
            )
        ],
        _OVERLAP,
    )


def top1_ranks(run: RunTables) -> pa.Table:
    """Rank 1..10, and 11 for all above, of one policy's top token under the other, at high
    divergence.

    share: of the positions of the direction and side; cumulative: of this rank and all before.
    Raises MissingColumns.
    """
    counts = _rank_counts(run)
    sides = " UNION ALL ".join(
        f"SELECT direction, {place} AS place, '{of}' AS of, '{under}' AS under, of_{of} AS "
        "rank, positions "
        f"FROM {counts} WHERE high AND of_{of} IS NOT NULL"
        for place, (of, under) in enumerate(_SIDES)
    )
    return tidy(
        run.query(f"""
            WITH sides AS ({sides}),
            ranks AS (SELECT unnest(range(1, {MAX_RANK + 2})) AS rank),
            wanted AS (SELECT * FROM (SELECT DISTINCT direction, place, of, under FROM sides),
                ranks),
            counted AS (SELECT direction, place, rank, sum(positions) AS positions FROM sides GROUP
                BY ALL)
            SELECT direction, of, under, rank, coalesce(positions, 0) AS positions,
                coalesce(positions, 0) / sum(positions) OVER side AS share,
                coalesce(sum(positions) OVER (side ORDER BY rank), 0) / sum(positions) OVER side AS
                    cumulative
            FROM wanted LEFT JOIN counted USING (direction, place, rank)
            WINDOW side AS (PARTITION BY direction, place) ORDER BY direction, place, rank
        """),
        _RANKS,
    )


def tail_probability(run: RunTables) -> pa.Table:
    """Share of the positions of high divergence where `under` gives the top token of `of` less than
    cutoff.

    positions: those where the probability is stored. Raises MissingColumns.
    """
    run.require("js", "logp_base_of_top1_rl", "logp_rl_of_top1_base")
    logps = [f"logp_{under}_of_top1_{of}" for of, under in _SIDES]
    below = [
        [f"count_if({logp} < {log(cutoff)!r}::DOUBLE)::BIGINT" for cutoff in TAIL_CUTOFFS]
        for logp in logps
    ]
    counts = ", ".join(
        f"[count_if(NOT isnan({logp}))::BIGINT, {', '.join(of)}]"
        for logp, of in zip(logps, below, strict=True)
    )
    found = run.query(
        f"SELECT direction, unnest([{counts}]) AS counts, unnest(range({len(_SIDES)})) AS place "
        f"FROM {run.measured} WHERE {IS_HIGH} GROUP BY direction ORDER BY direction, place"
    )
    return tidy(
        [
            (
                row["direction"],
                *_SIDES[row["place"]],
                cutoff,
                below / row["counts"][0],
                row["counts"][0],
            )
            for row in found.to_pylist()
            if row["counts"][0]
            for cutoff, below in zip(TAIL_CUTOFFS, row["counts"][1:], strict=True)
        ],
        _TAIL,
    )


def shift_classes(run: RunTables) -> pa.Table:
    """Shares of unshifted, marginal and shifted positions: the rank of rl's top token under base is
    1, 2-3, or more.

    The classes of Lin et al. 2023, "The Unlocking Spell on Base LLMs" (arXiv 2312.01552), with rl
    in the place of the aligned model and its top token in that of the decoded one; where: all
    measured positions, or those of high divergence. Raises MissingColumns.
    """
    counts = _rank_counts(run)
    return tidy(
        run.query(f"""
            WITH places AS (
                SELECT direction, 0 AS place, of_rl, positions FROM {counts} WHERE of_rl IS NOT NULL
                UNION ALL SELECT direction, 1, of_rl, positions FROM {counts} WHERE of_rl IS NOT
                    NULL AND high
            ),
            wanted AS (SELECT DISTINCT direction, place, unnest(range(3)) AS shift FROM places),
            counted AS (
                SELECT direction, place, CASE WHEN of_rl <= 1 THEN 0 WHEN of_rl <= 3 THEN 1 ELSE 2
                    END AS shift,
                    sum(positions) AS positions
                FROM places GROUP BY ALL
            )
            SELECT direction, ['all', 'high'][place + 1] AS where,
                ['unshifted', 'marginal', 'shifted'][shift + 1] AS shift, coalesce(positions, 0) AS
                    positions,
                coalesce(positions, 0) / sum(positions) OVER (PARTITION BY direction, place) AS
                    share
            FROM wanted LEFT JOIN counted USING (direction, place, shift)
            ORDER BY direction, place, wanted.shift
        """),
        _SHIFTS,
    )


def _rank_counts(run: RunTables) -> str:
    """Name of a table of positions by direction, whether high, and both ranks, capped: of_rl under
    base, of_base.
    """
    run.require("js", "rank_base_of_top1_rl", "rank_rl_of_top1_base")
    of_rl, of_base = (
        f"CASE WHEN {rank} > {MAX_RANK} THEN {MAX_RANK + 1} ELSE {rank} END"
        for rank in ("rank_base_of_top1_rl", "rank_rl_of_top1_base")
    )
    return run.kept(
        "rank_counts",
        f"SELECT direction, {IS_HIGH} AS high, {of_rl} AS of_rl, {of_base} AS of_base, count(*) "
        "AS positions "
        f"FROM {run.measured} GROUP BY ALL",
    )
