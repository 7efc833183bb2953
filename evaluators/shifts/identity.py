"""Identity of the tokens sampled at high and at low divergence: section 2 of arXiv 2603.22446.

A token that is frequent at high divergence, such as "the", may be near zero at most of its
positions. So the most frequent tokens come with their whole distribution of js.
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
    """The MAX_FREQUENT tokens sampled most often at low and at high divergence.

    Low is js <= NEAR_ZERO, high is js > HIGH_DIVERGENCE. Of equally frequent tokens the smaller id
    comes first.

    Returns:
        One row per direction, class and rank. `share` is the token's share of the positions of the
        class; `share_high` is the share of the token's measured positions that are high.

    Raises:
        MissingColumns: The run did not record a column that this needs.
    """
    counts = _token_counts(run)
    classes = " UNION ALL ".join(
        f"SELECT direction, {index} AS class, '{name}' AS divergence, token, {name} AS positions, "
        f"high / all_positions AS share_high FROM {counts} WHERE {name} > 0"
        for index, name in enumerate(("low", "high"))
    )
    ranked = run.query(f"""
        SELECT *, row_number() OVER (PARTITION BY direction, class ORDER BY positions DESC, token)
            AS rank,
            positions / sum(positions) OVER (PARTITION BY direction, class) AS share
        FROM ({classes}) QUALIFY rank <= {MAX_FREQUENT} ORDER BY direction, class, rank
    """)
    return tidy(_with_text(run, ranked), _FREQUENT)


def token_js(run: RunTables) -> pa.Table:
    """Histogram of js of each of the MAX_WITH_JS tokens that are most frequent at high divergence.

    Over all measured positions with the token, in bins as in `sparsity.js_histogram` but half an
    octave wide.

    Returns:
        One row per direction, token and bin; `rank` is by that frequency, from 1.

    Raises:
        MissingColumns: The run did not record a column that this needs.
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
            (direction, token, texts[token], rank, *js_bin)
            for (direction, rank, token), of_token in groups(counts, ["direction", "rank", "token"])
            for js_bin in of_token.histogram(BINS_PER_OCTAVE)
        ],
        _TOKEN_JS,
    )


def _token_counts(run: RunTables) -> str:
    """Name of a table: measured positions of each token, in all, at low and at high divergence."""
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


def _with_text(run: RunTables, table: pa.Table) -> pa.Table:
    texts = _texts(run, table["token"].unique())
    column = [texts[token] for token in table["token"].to_pylist()]
    return table.append_column("text", pa.array(column, TEXT))


def _texts(run: RunTables, tokens: pa.Array) -> dict[int, str]:
    """The text of each token; `#id` where the stored vocabulary does not have it."""
    texts: dict[int, str] = {token: f"#{token}" for token in tokens.to_pylist()}
    try:
        vocabulary = read_table(run.path / "vocabulary.parquet", VOCABULARY)
    except StoreError:
        return texts
    known = vocabulary.filter(pc.is_in(vocabulary["token"], tokens))
    return texts | dict(zip(known["token"].to_pylist(), known["text"].to_pylist(), strict=True))
