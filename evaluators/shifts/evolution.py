"""Evolution of js and of the high-divergence positions in training: section 4 of arXiv 2603.22446.

Each run has measured another checkpoint of one training. The runs come in the order of training,
and the last is the reference. Positions are compared only where all runs have measured the same
responses, as `xsample score` does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from engine.store.manifest import section
from evaluators.cutoffs import IS_HIGH
from evaluators.database.run_tables import RunTables
from evaluators.database.views import IS_MEASURED
from evaluators.shifts.grid import groups, js_counts
from evaluators.shifts.tidy import FLOAT, INT, TEXT, tidy

QUANTILES = {"median": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}

_STEP = re.compile(r"(?:step|checkpoint|ckpt|iter)[-_]?(\d{1,18})(?!\d)", re.IGNORECASE)
_BY_STEP = {
    "direction": TEXT, "step": INT, "label": TEXT, "mean": FLOAT, **dict.fromkeys(QUANTILES, FLOAT),
    "share_high": FLOAT, "positions": INT,
}  # fmt: skip
_OVERLAP = {
    "direction": TEXT, "step": INT, "label": TEXT, "shared": INT, "either": INT, "jaccard": FLOAT,
    "positions": INT,
}  # fmt: skip


def step_of(manifest: Mapping[str, Any]) -> int | None:
    """The training step in the name of a run's RL model.

    Returns:
        The last number that follows "step", "checkpoint", "ckpt" or "iter"; None where there is
        none.

    Example:
        100 of "global_step_100/actor" and of "checkpoint-100".
    """
    steps = _STEP.findall(str(section(manifest, "models").get("rl", "")))
    return int(steps[-1]) if steps else None


def js_by_step(runs: Sequence[RunTables]) -> pa.Table:
    """Mean and quantiles of js in nats, and the share of high divergence, at each checkpoint.

    Quantiles are the inverted CDF, within 0.14 % (see `grid`); mean and share are exact.

    Args:
        runs: The checkpoints in the order of training.

    Returns:
        One row per direction and run, over its measured positions.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    rows = []
    for run, step in zip(runs, _steps(runs), strict=True):
        high = run.query(
            f"SELECT direction, sum(high)::BIGINT AS high FROM {js_counts(run)} GROUP BY ALL"
        ).to_pylist()
        num_high = {row["direction"]: row["high"] for row in high}
        for (direction,), counts in groups(run.query(f"FROM {js_counts(run)}"), ["direction"]):
            quantiles = counts.quantiles(list(QUANTILES.values())).tolist()
            num_positions = counts.num_positions
            share_high = num_high[direction] / num_positions
            label = (direction, step, run.name)
            rows.append((*label, counts.mean, *quantiles, share_high, num_positions))
    return tidy(sorted(rows, key=lambda row: row[0]), _BY_STEP)


def same_responses(a: RunTables, b: RunTables) -> bool:
    """Whether both runs hold the same trajectories with the same tokens, in the arms measured."""
    first, second = (
        f"SELECT problem, sample, direction, budget, hash(token_ids) FROM {run.arm_responses}"
        for run in (a, b)
    )
    sql = f"""
        SELECT EXISTS(({first}) EXCEPT ({second})) OR EXISTS(({second}) EXCEPT ({first})) AS differ
    """
    return not a.query(sql)["differ"][0].as_py()


def high_overlap(runs: Sequence[RunTables]) -> pa.Table:
    """Jaccard index of each run's high-divergence positions with those of the last run.

    Args:
        runs: The checkpoints in the order of training.

    Returns:
        One row per direction and run, over the positions that it and the last run have measured:
        `shared` of them are high in both runs, `either` in at least one, and `jaccard` is shared /
        either, null where none is high. No rows where not all runs have measured the same
        responses.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    for run in runs:
        run.require("js")
    if not runs or not all(same_responses(run, runs[-1]) for run in runs[:-1]):
        return tidy([], _OVERLAP)
    values = ("shared", "either", "jaccard", "positions")
    rows = [
        (row["direction"], step, run.name, *(row[name] for name in values))
        for run, step in zip(runs, _steps(runs), strict=True)
        for row in run.query(_overlap(run, runs[-1])).to_pylist()
    ]
    return tidy(sorted(rows, key=lambda row: row[0]), _OVERLAP)


def _steps(runs: Sequence[RunTables]) -> list[int | None]:
    return [step_of(run.manifest) for run in runs]


def _overlap(run: RunTables, last: RunTables) -> str:
    """SQL of the overlap of `run` with `last`; `ours` and `theirs` are their rows at a position.

    Only rows of high divergence and unmeasured rows are joined: both are few, the others many. The
    positions that both runs have measured are all minus those that either has not.
    """
    key = "direction, problem, sample, position"
    high, last_high = (
        f"SELECT {key}, true AS high FROM {r.measured} WHERE {IS_HIGH}" for r in (run, last)
    )
    unmeasured, last_unmeasured = (
        f"SELECT {key} FROM {r.arm_tokens} WHERE ({IS_MEASURED}) IS NOT TRUE" for r in (run, last)
    )
    return f"""
        WITH unmeasured AS MATERIALIZED ({unmeasured} UNION {last_unmeasured}),
        united AS (
            SELECT {key}, ours.high AND theirs.high AS in_both
            FROM ({high}) AS ours FULL JOIN ({last_high}) AS theirs USING ({key})
        ),
        high AS (
            SELECT direction, count_if(in_both) AS shared, count(*) AS either
            FROM united ANTI JOIN unmeasured USING ({key}) GROUP BY direction
        ),
        tokens AS (SELECT direction, count(*) AS tokens FROM {run.arm_tokens} GROUP BY direction),
        without AS (SELECT direction, count(*) AS without FROM unmeasured GROUP BY direction)
        SELECT direction, coalesce(shared, 0) AS shared, coalesce(either, 0) AS either,
            shared / nullif(either, 0) AS jaccard, tokens - coalesce(without, 0) AS positions
        FROM tokens LEFT JOIN high USING (direction) LEFT JOIN without USING (direction)
        WHERE tokens > coalesce(without, 0) ORDER BY direction
    """
