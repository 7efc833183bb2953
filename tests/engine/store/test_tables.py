"""write_table: every column comes back bit for bit, to pyarrow and to DuckDB, in few pages that are
read one by one.
"""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.errors import StoreError
from engine.store.schema import GRADES, PROBLEMS, RESPONSES, TOKENS, VOCABULARY
from engine.store.tables import decodes, read_table, write_table

ROWS = 1_000
SPECIAL = [
    0.0,
    -0.0,
    np.nan,
    -np.nan,
    np.inf,
    -np.inf,
    np.finfo(np.float32).tiny / 4,
    -1.1920929e-07,
]


def any_column(rng: np.random.Generator, field: pa.Field, num_rows: int = ROWS) -> pa.Array:
    """Every bit pattern is as likely as any other, special values and nulls among them."""
    kind = field.type
    mask = rng.random(num_rows) < 0.3 if field.nullable else np.zeros(num_rows, np.bool_)
    if pa.types.is_list(kind):
        offsets = pa.array(np.append(0, rng.integers(0, 4, num_rows).cumsum()), pa.int32())
        values = any_column(rng, pa.field("", kind.value_type, False), offsets[-1].as_py())
        return pa.ListArray.from_arrays(offsets, values, type=kind, mask=pa.array(mask))
    if pa.types.is_string(kind):
        return pa.array(np.array(["", "a", "π\n\0"])[rng.integers(0, 3, num_rows)], mask=mask)
    if pa.types.is_boolean(kind):
        return pa.array(rng.random(num_rows) < 0.5, mask=mask)
    bits = np.frombuffer(rng.bytes(num_rows * kind.bit_width // 8), kind.to_pandas_dtype()).copy()
    if pa.types.is_floating(kind):
        bits[: len(SPECIAL)] = SPECIAL
    return pa.array(bits, kind, mask=mask, from_pandas=False)


def any_table(schema: pa.Schema, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table([any_column(rng, field) for field in schema], schema)


def bits(column: pa.ChunkedArray) -> list[object]:
    """Floats as their bits: NaN equals no NaN, and -0.0 equals 0.0."""
    if not pa.types.is_floating(column.type):
        values: list[object] = column.to_pylist()
        return values
    array = column.combine_chunks()
    found = array.fill_null(0).to_numpy().view(np.int32).tolist()
    return [
        value if valid else None
        for value, valid in zip(found, array.is_valid().to_pylist(), strict=True)
    ]


@pytest.mark.parametrize(
    "schema", [TOKENS, RESPONSES, GRADES, PROBLEMS, VOCABULARY], ids=["t", "r", "g", "p", "v"]
)
def test_every_column_comes_back_bit_for_bit(tmp_path: Path, schema: pa.Schema) -> None:
    table = any_table(schema)
    write_table(tmp_path / "t.parquet", table, 300)
    read = read_table(tmp_path / "t.parquet", schema)
    assert read.schema.equals(schema, check_metadata=True)
    assert all(bits(read[name]) == bits(table[name]) for name in schema.names)


def test_duckdb_reads_the_same_bits(tmp_path: Path) -> None:
    table = any_table(TOKENS)
    write_table(tmp_path / "t.parquet", table, 300)
    with duckdb.connect() as database:
        read = database.read_parquet(str(tmp_path / "t.parquet")).to_arrow_table()
    assert all(bits(read[name]) == bits(table[name]) for name in TOKENS.names)


@settings(max_examples=30, deadline=None)
@given(values=hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_any_floats_come_back_whatever_the_encoding_of_their_column(
    values: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("floats") / "t.parquet"
    table = pa.table({name: pa.array(values, from_pandas=False) for name in ("js", "entropy_base")})
    write_table(file, table, 16)
    read = pq.read_table(file)
    assert all(bits(read[name]) == bits(table[name]) for name in ("js", "entropy_base"))


def test_one_flipped_bit_in_any_column_is_found(tmp_path: Path) -> None:
    file = tmp_path / "part.parquet"
    write_table(file, any_table(TOKENS), 1 << 17)
    assert decodes(file, TOKENS)
    whole, rng, chunks = (
        file.read_bytes(),
        np.random.default_rng(0),
        pq.read_metadata(file).row_group(0),
    )
    for place in range(chunks.num_columns):
        chunk = chunks.column(place)
        first = (
            chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
        )
        end = first + chunk.total_compressed_size  # the last page's content, not its header
        damaged = bytearray(whole)
        damaged[int(rng.integers(end - 20, end))] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        assert not decodes(file, TOKENS), chunk.path_in_schema
        with pytest.raises(StoreError, match=r"part\.parquet cannot be read"):
            read_table(file, TOKENS)


def test_a_table_without_rows_comes_back(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", TOKENS.empty_table(), 300)
    assert read_table(tmp_path / "t.parquet", TOKENS).num_rows == 0


def test_columns_have_the_encoding_that_makes_them_small(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", any_table(TOKENS), 300)
    group = pq.read_metadata(tmp_path / "t.parquet").row_group(0)
    encodings = {
        group.column(n).path_in_schema: set(group.column(n).encodings)
        for n in range(group.num_columns)
    }
    apart = [name for name, found in encodings.items() if "BYTE_STREAM_SPLIT" in found]
    assert {"token", "position", "entropy_rl", "topk_base.list.element"} <= set(apart)
    assert {"js", "logp_base", "logp_rl_of_top1_base"}.isdisjoint(apart)
    assert not any("DICTIONARY" in encoding for encoding in encodings["js"] | encodings["token"])
    assert "RLE_DICTIONARY" in encodings["problem"]
