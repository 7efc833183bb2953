"""Robustness of js to the truncation of the distributions (top-p, top-k).

arXiv 2603.22446 repeats its measurements with other top-p and with full distributions. The stored
rows of one run give its own truncation, top-1 exactly, and a lower bound for full distributions.
Any other truncation has to be measured: `xsample score RUN --top-p ...` makes a run of the same
responses, whose rows have the source "measured".
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from engine.store.manifest import section
from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.database.run_tables import RunTables
from evaluators.database.views import quoted
from evaluators.shifts.grid import js_counts
from evaluators.shifts.tidy import FLOAT, INT, TEXT, tidy

GREEDY = "top-1 (greedy)"
FULL = "full distribution"
MEASURED, EXACT, BOUND = "measured", "stored data, exact", "stored data, a lower bound"

_COLUMNS = {
    "direction": TEXT, "truncation": TEXT, "source": TEXT, "positions": INT, "near_zero": FLOAT,
    "high": FLOAT, "mean": FLOAT,
}  # fmt: skip


def truncations(run: RunTables) -> pa.Table:
    """Shares near zero and high, and the mean of js, under each truncation.

    - MEASURED: the js of the run.
    - EXACT: the js of top-1 distributions is 0 where the top tokens agree and ln 2 where they do
      not.
    - BOUND: the js of the full distributions at temperature 1 is at least that of the distributions
      over {the sampled token, all other tokens}, by the data processing inequality (Cover and
      Thomas, Elements of Information Theory, 2.8, for KL, of which js is a mean). So `mean` and
      `high` are lower bounds and `near_zero` is an upper bound, up to the rounding of the stored
      float32.

    Returns:
        One row per direction and truncation. `near_zero` is the share of js <= NEAR_ZERO, `high`
        that of js > HIGH_DIVERGENCE; `mean` is in nats.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    run.require("js", "top1_base", "top1_rl", "logp_base", "logp_rl")
    measured = f"""
        SELECT direction, 0 AS number, {quoted(_own(run.manifest))} AS truncation, '{MEASURED}' AS
            source,
            sum(positions) AS positions, sum(near_zero) AS near_zero, sum(high) AS high, sum(total)
                AS total
        FROM {js_counts(run)} GROUP BY direction
    """
    stored = f"""
        SELECT direction, unnest([1, 2]) AS number, unnest(['{GREEDY}', '{FULL}, lower bound']) AS
            truncation,
            unnest(['{EXACT}', '{BOUND}']) AS source, unnest([count(agree), count(bound)]) AS
                positions,
            unnest([count_if(agree), count_if(bound <= {NEAR_ZERO}::DOUBLE)]) AS near_zero,
            unnest([count_if(NOT agree), count_if(bound > {HIGH_DIVERGENCE}::DOUBLE)]) AS high,
            unnest([ln(2) * count_if(NOT agree), sum(bound)]) AS total
        FROM ({_per_position(run.measured)}) GROUP BY direction
    """
    return tidy(
        run.query(f"""
            SELECT direction, truncation, source, positions, near_zero / positions AS near_zero,
                high / positions AS high, total / positions AS mean
            FROM ({measured} UNION ALL {stored}) WHERE positions > 0 ORDER BY direction, number
        """),
        _COLUMNS,
    )


def truncation_name(temperature: float, top_p: float, top_k: int) -> str:
    """A truncation in words, such as "top-p 0.7"; settings without effect are left out."""
    if temperature == 0 or top_k == 1:
        return GREEDY
    cuts = [f"top-p {top_p:g}"] * (top_p < 1) + [f"top-k {top_k}"] * (top_k > 0)
    return ", ".join([f"temperature {temperature:g}"] * (temperature != 1) + (cuts or [FULL]))


def _own(manifest: dict[str, Any]) -> str:
    """The name of the run's truncation, or of an unknown one."""
    config = section(manifest, "config")
    try:
        return truncation_name(
            float(config["temperature"]), float(config["top_p"]), int(config["top_k"] or 0)
        )
    except (TypeError, ValueError, KeyError):
        return "as sampled (not known)"


def _per_position(measured: str) -> str:
    """SQL of direction, agree (whether the top tokens are equal) and bound, in nats.

    The bound is the js of P = (p, 1 - p) and Q = (q, 1 - q), where p and q are the policies'
    probabilities of the sampled token: (KL(P || M) + KL(Q || M)) / 2 with M = (P + Q) / 2.
    """

    def terms(p: str, q: str) -> str:
        return " + ".join(
            f"CASE WHEN {x} > 0 THEN {x} * ln(2 * {x} / ({p} + {q})) ELSE 0 END" for x in (p, q)
        )

    return f"""
        SELECT direction, agree, CASE WHEN p IS NOT NULL AND q IS NOT NULL
            THEN greatest(0, ({terms("p", "q")} + {terms("(1 - p)", "(1 - q)")}) / 2) END AS bound
        FROM (
            SELECT direction, top1_base = top1_rl AS agree, {_probability("logp_base")} AS p,
                {_probability("logp_rl")} AS q
            FROM {measured}
        )
    """


def _probability(logp: str) -> str:
    """SQL of a probability, null where its logarithm is null or NaN.

    `least` ignores a null, so without the CASE it would give a probability of 1.
    """
    return f"CASE WHEN NOT isnan({logp}) THEN exp(least({logp}::DOUBLE, 0)) END"
