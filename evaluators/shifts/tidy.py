"""Tidy tables: long form, with the same columns and types whatever a run holds.

Every measurement ends here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

TEXT, INT, FLOAT = pa.string(), pa.int64(), pa.float64()


def tidy(
    rows: pa.Table | Sequence[tuple[Any, ...]], columns: Mapping[str, pa.DataType]
) -> pa.Table:
    """Give a measurement its final columns.

    Args:
        rows: The result of a query, with at least these columns, or rows in their order.
        columns: Names and types of the columns of the table.
    """
    schema = pa.schema(list(columns.items()))
    if isinstance(rows, pa.Table):
        return rows.select(list(columns)).cast(schema)
    values = zip(*rows, strict=True) if rows else [()] * len(columns)
    return pa.table(
        [pa.array(column, type_) for column, type_ in zip(values, columns.values(), strict=True)],
        schema,
    )
