"""How far the two policies of a run diverge: means over the tokens of each arm.

The table of tokens is streamed, never held in memory.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from engine.core import ALL_DIRECTIONS
from engine.errors import StoreError
from engine.system.files import reason
from evaluators.cutoffs import HIGH_DIVERGENCE
from evaluators.scores.outcomes import Arm

_ARM = ["direction", "budget"]
_MEANS = ("js", "entropy_base", "entropy_rl", "logp_base", "logp_rl")

Totals = defaultdict[str, float]


def measure_divergence(tokens: ds.Dataset) -> list[dict[str, Any]]:
    """Measure the divergence of the policies on each arm.

    Args:
        tokens: The tokens of a run, with the columns of `engine.store.schema.TOKENS`.

    Returns:
        One row per arm, in the order of the summary. A mean over no token is None.

        - direction, budget: the arm.
        - tokens: number of tokens.
        - positions: number of tokens whose distributions both policies computed.
        - js_mean: mean over these positions, in nats.
        - high_divergence_share: share of these positions with js above HIGH_DIVERGENCE, 0 to 1.
        - entropy_base_mean, entropy_rl_mean, logp_base_mean, logp_rl_mean: in nats, over the tokens
          whose distribution that policy computed.

    Raises:
        StoreError: A file of tokens cannot be read, or a direction in it is unknown.
    """
    arms: defaultdict[Arm, Totals] = defaultdict(lambda: defaultdict(float))
    try:
        for batch in tokens.to_batches(columns=[*_ARM, *_MEANS]):
            for totals in _totals(batch):
                arm_totals = arms[Arm(totals.pop("direction"), totals.pop("budget"))]
                for name, total in totals.items():
                    arm_totals[name] += total or 0  # a sum of nulls is null
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"the tokens of the run cannot be read: {reason(error)}; `xsample verify` says which"
        ) from error
    if unknown := {arm.direction for arm in arms} - set(ALL_DIRECTIONS):
        raise StoreError(
            f"the tokens have a direction {min(map(str, unknown))!r:.60}, which no run has"
        )
    return [arm._asdict() | _row(arms[arm]) for arm in sorted(arms, key=lambda arm: arm.sort_key)]


def _totals(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Sums and counts of the values that are not null, one row per arm of the batch."""
    rows = pa.Table.from_batches([batch])
    rows = rows.append_column("high", pc.greater(rows["js"], HIGH_DIVERGENCE).cast(pa.int64()))
    aggregates = [(name, kind) for name in _MEANS for kind in ("sum", "count")]
    # One thread: sums of floats depend on their order, and a regrade must give the same bytes.
    totals = rows.group_by(_ARM, use_threads=False).aggregate(
        [*aggregates, ("high", "sum"), ([], "count_all")]
    )
    return list(totals.to_pylist())


def _row(totals: Totals) -> dict[str, Any]:
    means = {
        f"{name}_mean": _mean(totals[f"{name}_sum"], totals[f"{name}_count"]) for name in _MEANS
    }
    return {
        "tokens": int(totals["count_all"]),
        "positions": int(totals["js_count"]),
        "js_mean": means.pop("js_mean"),
        "high_divergence_share": _mean(totals["high_sum"], totals["js_count"]),
        **means,
    }


def _mean(total: float, count: float) -> float | None:
    return total / count if count else None
