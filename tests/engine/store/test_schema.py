"""The tables' schemas: keys, units, and that they survive a trip through a Parquet file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.core import TRAJECTORY_KEY, Grade, Trajectory
from engine.store.schema import GRADES, PROBLEMS, RESPONSES, SCHEMA_VERSION, TOKENS, VOCABULARY

KEYED = pytest.mark.parametrize(
    "schema", [TOKENS, RESPONSES, GRADES], ids=["tokens", "responses", "grades"]
)
TABLES = pytest.mark.parametrize(
    "schema",
    [TOKENS, RESPONSES, GRADES, PROBLEMS, VOCABULARY],
    ids=["tokens", "responses", "grades", "problems", "vocabulary"],
)


@KEYED
def test_every_table_of_trajectories_begins_with_the_key_of_the_trajectory(
    schema: pa.Schema,
) -> None:
    assert tuple(schema.names[:4]) == TRAJECTORY_KEY == Trajectory._fields


@KEYED
def test_only_the_budget_of_a_key_may_be_null(schema: pa.Schema) -> None:
    assert [field.name for field in schema if field.name in TRAJECTORY_KEY and field.nullable] == [
        "budget"
    ]


@TABLES
def test_every_column_says_its_unit_and_meaning(schema: pa.Schema) -> None:
    assert all(
        set(field.metadata) == {b"unit", b"meaning"} and field.metadata[b"meaning"]
        for field in schema
    )


@TABLES
def test_a_schema_with_its_version_and_units_survives_parquet(
    schema: pa.Schema, tmp_path: Path
) -> None:
    pq.write_table(schema.empty_table(), tmp_path / "t.parquet")
    read = pq.read_schema(tmp_path / "t.parquet")
    assert read.equals(schema)
    assert read.metadata[b"xsample.schema_version"] == str(SCHEMA_VERSION).encode()
    assert all(read.field(f.name).metadata[b"unit"] == f.metadata[b"unit"] for f in schema)


def test_a_measure_of_one_model_has_a_nullable_column_for_each() -> None:
    for field in TOKENS:
        if field.name.endswith("_base") and "_of_" not in field.name:
            twin = TOKENS.field(field.name.removesuffix("base") + "rl")
            assert (twin.type, field.nullable, twin.nullable) == (field.type, True, True)


def test_a_grade_has_the_columns_of_its_table_after_the_key() -> None:
    assert Grade._fields[1:] == tuple(GRADES.names[4:])
