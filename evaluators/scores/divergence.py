"""How far the two policies are apart along the responses of a run: a row an arm, streamed from its
table of tokens.
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


def measured(tokens: ds.Dataset) -> list[dict[str, Any]]:
    """A row an arm, arms as in the summary; `tokens` has the columns of record.TOKENS.

    tokens: how many; positions: those of them that both policies have measured; js_mean: over
    these, in nats; high_divergence_share: of these, those with js above HIGH_DIVERGENCE;
    entropy_*_mean, logp_*_mean: in nats, over the tokens that the policy has seen. None is the mean
    of nothing. Raises StoreError where a part cannot be read.
    """
    arms: defaultdict[Arm, Totals] = defaultdict(lambda: defaultdict(float))
    try:
        for batch in tokens.to_batches(columns=[*_ARM, *_MEANS]):
            for totals in _totals(batch):
                of_arm = arms[Arm(totals.pop("direction"), totals.pop("budget"))]
                for name, total in totals.items():
                    of_arm[name] += total or 0  # a sum of nulls is null
    except (OSError, pa.ArrowException) as error:
        raise StoreError(
            f"the tokens of the run cannot be read: {reason(error)}; `xsample verify` says which"
        ) from error
    if unknown := {arm.direction for arm in arms} - set(ALL_DIRECTIONS):
        raise StoreError(
            f"the tokens have a direction {min(map(str, unknown))!r:.60}, which no run has"
        )
    return [arm._asdict() | _row(arms[arm]) for arm in sorted(arms, key=lambda arm: arm.place)]


def _totals(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Sums and counts of what is not null, a row an arm of the batch."""
    rows = pa.Table.from_batches([batch])
    rows = rows.append_column("high", pc.greater(rows["js"], HIGH_DIVERGENCE).cast(pa.int64()))
    asked = [(name, kind) for name in _MEANS for kind in ("sum", "count")]
    # One thread: sums of floats depend on their order, and a regrade must give the same bytes.
    found = rows.group_by(_ARM, use_threads=False).aggregate(
        [*asked, ("high", "sum"), ([], "count_all")]
    )
    return list(found.to_pylist())


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
