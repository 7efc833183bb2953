"""Tidy tables: long form, the same columns and types whatever was found. Every measurement ends
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

TEXT, INT, FLOAT = pa.string(), pa.int64(), pa.float64()


def tidy(
    found: pa.Table | Sequence[tuple[Any, ...]], columns: Mapping[str, pa.DataType]
) -> pa.Table:
    """A query's result, or rows, with exactly these columns in this order."""
    schema = pa.schema(list(columns.items()))
    if isinstance(found, pa.Table):
        return found.select(list(columns)).cast(schema)
    values = zip(*found, strict=True) if found else [()] * len(columns)
    return pa.table(
        [pa.array(column, type_) for column, type_ in zip(values, columns.values(), strict=True)],
        schema,
    )
