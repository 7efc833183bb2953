"""The SQL of a run's views, over its readable parts.

All file names and values that go into SQL are quoted here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import inf
from pathlib import Path

import duckdb
import pyarrow as pa

from engine.core import budget_order
from engine.store.schema import RESPONSES, TOKENS
from evaluators.database.parts import Part

# Neither null nor NaN. Not `BETWEEN`: a part's statistics, which know no NaN, may answer that.
IS_MEASURED = "isfinite(js)"
"""SQL condition for the tokens that both policies measured."""
_SQL_TYPES = {
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "list<item: int32>": "INTEGER[]",
}


def create_views(
    database: duckdb.DuckDBPyConnection, run: str, parts: Sequence[Part]
) -> dict[str, str]:
    """Create the views that RunTables describes, in place of those of a run of the same name.

    Args:
        database: The database.
        run: The name of the run.
        parts: Its readable parts, at least one.

    Returns:
        Field of RunTables -> name of the view in SQL.

    Raises:
        duckdb.Error: A part is not what its footer says.
    """
    schema = schema_of(run)
    database.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")
    views = {
        name: f"{schema}.{name}"
        for name in ("responses", "tokens", "arm_responses", "arm_tokens", "measured")
    }
    database.execute(
        f"CREATE VIEW {views['responses']} AS {_select('responses', RESPONSES, parts)}"
    )
    database.execute(f"CREATE VIEW {views['tokens']} AS {_select('tokens', TOKENS, parts)}")
    arms = database.sql(
        f"SELECT DISTINCT direction, budget FROM {views['responses']} WHERE direction IS NOT NULL"
    )
    of_arms = _of_arms(arms.fetchall())
    for name in ("responses", "tokens"):
        database.execute(
            f"CREATE VIEW {views[f'arm_{name}']} AS SELECT * FROM {views[name]} WHERE {of_arms}"
        )
    database.execute(
        f"CREATE VIEW {views['measured']} AS SELECT * FROM {views['arm_tokens']} WHERE"
        f" {IS_MEASURED}"
    )
    return views


def schema_of(run: str) -> str:
    """The DuckDB schema of a run; each run has its own, so that several share a database."""
    return '"' + f"run {run}".replace('"', '""') + '"'


def literal(path: Path) -> str:
    """A file name as a SQL literal for read_parquet, with its wildcards `*`, `?`, `[` escaped."""
    return quoted(re.sub(r"([*?\[])", r"[\1]", str(path)))


def quoted(text: str) -> str:
    """A text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def _select(folder: str, schema: pa.Schema, parts: Sequence[Part]) -> str:
    """The query for all rows of one table of the parts, with every column of `schema`."""
    held = frozenset().union(*(part.schemas[folder].names for part in parts))
    columns = [
        f"CAST({field.name if field.name in held else 'NULL'} AS {_SQL_TYPES[str(field.type)]}) AS"
        f" {field.name}"
        for field in schema
    ]
    files = ", ".join(literal(part.files[folder]) for part in parts)
    # With `union_by_name` each query reads all footers; without, the first part's types must be
    # those of all.
    unite = any(part.schemas[folder] != parts[0].schemas[folder] for part in parts)
    return (
        f"SELECT {', '.join(columns)} FROM read_parquet([{files}], union_by_name = {unite},"
        " hive_partitioning = false)"
    )


def _of_arms(arms: list[tuple[str, int | None]]) -> str:
    """SQL condition for the largest budget of each direction; `true` if every arm is kept."""
    largest: dict[str, float] = {}
    for direction, budget in arms:
        largest[direction] = max(largest.get(direction, 0.0), budget_order(budget))
    if len(largest) == len(arms):
        return "true"
    return " OR ".join(
        f"(direction = {quoted(direction)} AND budget"
        f" {'IS NULL' if budget == inf else f'= {int(budget)}'})"
        for direction, budget in largest.items()
    )
