"""The views of a run in SQL, over those of its parts that are readable. Every file's name and value
is quoted here.
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

# neither null nor NaN; `BETWEEN` may be answered from a part's statistics, which know no NaN
IS_MEASURED = "isfinite(js)"
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
    """The views that RunTables describes, by its names for them; they replace those of a run of the
    same name.

    Raises duckdb.Error where a part is not what its footer says.
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
    """The DuckDB schema of a run; a run has one of its own, so that several share a database."""
    return '"' + f"run {run}".replace('"', '""') + '"'


def literal(path: Path) -> str:
    """A file's name in SQL, for read_parquet, which would take `*`, `?` and `[` for wildcards."""
    return quoted(re.sub(r"([*?\[])", r"[\1]", str(path)))


def quoted(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def _select(folder: str, schema: pa.Schema, parts: Sequence[Part]) -> str:
    held = frozenset().union(*(part.schemas[folder].names for part in parts))
    columns = [
        f"CAST({field.name if field.name in held else 'NULL'} AS {_SQL_TYPES[str(field.type)]}) AS"
        f" {field.name}"
        for field in schema
    ]
    files = ", ".join(literal(part.files[folder]) for part in parts)
    # Uniting reads all footers for each query; else the types of the first part are those of all.
    unite = any(part.schemas[folder] != parts[0].schemas[folder] for part in parts)
    return (
        f"SELECT {', '.join(columns)} FROM read_parquet([{files}], union_by_name = {unite},"
        " hive_partitioning = false)"
    )


def _of_arms(arms: list[tuple[str, int | None]]) -> str:
    """Which rows are of the arms that are looked at. Nothing is asked of the rows where that is all
    of them.
    """
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
