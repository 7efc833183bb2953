"""Identity: which tokens are sampled at high and at low divergence. Section 2 of arXiv 2603.22446.

A token that is frequent at high divergence may be near zero at most of its positions ("the"), hence
the whole distribution of js of the most frequent ones.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from engine.errors import StoreError
from engine.store.schema import VOCABULARY
from engine.store.tables import read_table
from evaluators.cutoffs import IS_HIGH, IS_NEAR_ZERO
from evaluators.database.run_tables import RunTables
from evaluators.shifts.grid import KEY, TOTALS, groups
from evaluators.shifts.tidy import FLOAT, INT, TEXT, tidy

MAX_FREQUENT = 50
MAX_WITH_JS = 20
BINS_PER_OCTAVE = 2

_FREQUENT = {
    "direction": TEXT, "divergence": TEXT, "rank": INT, "token": INT, "text": TEXT,
    "positions": INT, "share": FLOAT, "share_high": FLOAT,
}  # fmt: skip
_TOKEN_JS = {
    "direction": TEXT, "token": INT, "text": TEXT, "rank": INT, "js_low": FLOAT, "js_high": FLOAT,
    "positions": INT,
}  # fmt: skip


def frequent_tokens(run: RunTables) -> pa.Table:
    """The 50 tokens taken most often at low (js <= NEAR_ZERO) and at high (js > HIGH_DIVERGENCE)
    divergence.

    share: of the positions of the class; share_high: of all measured positions with this token,
    those that are high. Of equally frequent tokens the smaller id comes first. Raises
    MissingColumns.
    """
    counts = _token_counts(run)
    classes = " UNION ALL ".join(
        f"SELECT direction, {place} AS place, '{name}' AS divergence, token, {name} AS positions, "
        f"high / all_positions AS share_high FROM {counts} WHERE {name} > 0"
        for place, name in enumerate(("low", "high"))
    )
    found = run.query(f"""
        SELECT *, row_number() OVER (PARTITION BY direction, place ORDER BY positions DESC, token)
            AS rank,
            positions / sum(positions) OVER (PARTITION BY direction, place) AS share
        FROM ({classes}) QUALIFY rank <= {MAX_FREQUENT} ORDER BY direction, place, rank
    """)
    return tidy(_with_text(run, found), _FREQUENT)


def token_js(run: RunTables) -> pa.Table:
    """How js is distributed over all measured positions with one of the 20 tokens most frequent at
    high divergence.

    rank: by that frequency, from 1. Bins as in `sparsity.js_histogram`, but half octaves. Raises
    MissingColumns.
    """
    top = f"""
        SELECT direction, token, row_number() OVER (PARTITION BY direction ORDER BY high DESC,
            token) AS rank
        FROM {_token_counts(run)} WHERE high > 0 QUALIFY rank <= {MAX_WITH_JS}
    """
    counts = run.query(f"""
        SELECT direction, rank, token, {KEY} AS key, {TOTALS}
        FROM {run.measured} JOIN ({top}) USING (direction, token) GROUP BY ALL
    """)
    texts = _texts(run, counts["token"].unique())
    return tidy(
        [
            (direction, token, texts[token], rank, *found)
            for (direction, rank, token), of_token in groups(counts, ["direction", "rank", "token"])
            for found in of_token.histogram(BINS_PER_OCTAVE)
        ],
        _TOKEN_JS,
    )


def _token_counts(run: RunTables) -> str:
    """Name of a table of direction, token, and its measured positions: all_positions, low and
    high.
    """
    run.require("js")
    return run.kept(
        "token_counts",
        f"""
            SELECT direction, token, count(*) AS all_positions, count_if({IS_NEAR_ZERO})::BIGINT AS
                low,
                count_if({IS_HIGH})::BIGINT AS high
            FROM {run.measured} GROUP BY ALL
        """,
    )


def _with_text(run: RunTables, found: pa.Table) -> pa.Table:
    texts = _texts(run, found["token"].unique())
    return found.append_column(
        "text", pa.array([texts[token] for token in found["token"].to_pylist()], TEXT)
    )


def _texts(run: RunTables, tokens: pa.Array) -> dict[int, str]:
    """Text of each of `tokens`; `#id` where the vocabulary is not stored or does not have it."""
    texts: dict[int, str] = {token: f"#{token}" for token in tokens.to_pylist()}
    try:
        vocabulary = read_table(run.path / "vocabulary.parquet", VOCABULARY)
    except StoreError:
        return texts
    known = vocabulary.filter(pc.is_in(vocabulary["token"], tokens))
    return texts | dict(zip(known["token"].to_pylist(), known["text"].to_pylist(), strict=True))
