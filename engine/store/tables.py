"""Arrow tables of our schemas as Parquet files.

A file is written whole or not at all, and an error names the file. Knows nothing of runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StoreError
from engine.system.files import reason, write_whole

_NUMBERS = (pa.int32(), pa.float32())


def from_rows(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Make a table of rows.

    Args:
        rows: The rows; each holds its values in the order of the columns.
        schema: The schema of the table.
    """
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)],
        schema,
    )


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Give a table exactly the columns, types and metadata of a schema.

    Args:
        table: A table with the columns of the schema, in any order.
        schema: One of `engine.store.schema`.

    Raises:
        pyarrow.ArrowInvalid: An integer does not fit the type of its column.
    """
    name = schema.metadata[b"xsample.table"].decode()
    assert set(table.column_names) == set(schema.names), (
        f"{name}: columns missing {set(schema.names) - set(table.column_names)}, "
        f"unknown {set(table.column_names) - set(schema.names)}"
    )
    return table.select(schema.names).cast(schema)


def write_table(target: Path, table: pa.Table, rows_per_group: int) -> None:
    """Write a table whole or not at all, durably.

    Args:
        target: The Parquet file.
        table: Its rows.
        rows_per_group: Rows per row group, at most; a group has one page per column.

    Raises:
        StoreError: The file cannot be written.
    """
    leaves = dict(_leaves(table.schema))
    # Measured floats hardly repeat: a dictionary only adds to them. Ids, counts and entropies are
    # smallest with their bytes split into one stream per byte position. js and log-probabilities
    # are not: where a policy is sure, whole values repeat. zstd compresses the streams separately
    # only if each fills its blocks of 128 KiB: hence one page per group, not one per 20,000 rows.
    write_whole(
        target,
        lambda file: pq.write_table(
            table,
            file,
            compression="zstd",
            compression_level=3,
            row_group_size=rows_per_group,
            max_rows_per_page=rows_per_group,
            # Without checksums, six of seven flipped bits silently decode to other values.
            write_page_checksum=True,
            use_dictionary=[path for path, kind in leaves.items() if kind not in _NUMBERS],
            column_encoding={
                path: _encoding(path, kind) for path, kind in leaves.items() if kind in _NUMBERS
            },
        ),
    )


def _leaves(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    """Path in the file and type of the values of each column; of a list, those of its elements."""
    for field in schema:
        if pa.types.is_list(field.type):
            yield f"{field.name}.list.element", field.type.value_type
        else:
            yield field.name, field.type


def _encoding(path: str, kind: pa.DataType) -> str:
    return "BYTE_STREAM_SPLIT" if kind == pa.int32() or path.startswith("entropy") else "PLAIN"


def read_table(file: Path, schema: pa.Schema) -> pa.Table:
    """Read the columns of a schema from a file.

    Args:
        file: The Parquet file, which may have other columns too.
        schema: The columns to read, and their types.

    Raises:
        StoreError: The file is damaged or missing, or lacks a column.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            return parquet.read(columns=schema.names).cast(schema)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise StoreError(
            f"{file} cannot be read: {reason(error)}; restore it, or remove it and run the same"
            " `xsample run` again"
        ) from error


def decodes(file: Path, schema: pa.Schema) -> bool:
    """Whether a file has this schema and can be read to its last row, with valid checksums."""
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            rows = 0
            for batch in parquet.iter_batches():
                batch.validate(
                    full=True
                )  # bytes that are no text pass the checksums of their writer
                rows += batch.num_rows
            return bool(parquet.schema_arrow.equals(schema)) and rows == parquet.metadata.num_rows
    except (OSError, pa.ArrowException, ValueError):
        return False
