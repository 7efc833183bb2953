"""Tidy tables as CSV files that a spreadsheet can open safely.

Numbers are short, and no text is a formula.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

_DIGITS = 9  # significant digits of a float
_FORMULA = "^[=+\\-@\\t\\r\\n\N{FULLWIDTH EQUALS SIGN}]"


def to_csv(table: pa.Table) -> bytes:
    """Convert a table to CSV, in UTF-8 with a header.

    Null is an empty cell, and the empty text is "". Floats have at most 9 significant digits. A
    text that a spreadsheet would take for a formula, because it begins with = + - @, a tab or a
    line end, gets a ' before it: token texts, problem ids and names of runs are not trusted.
    """
    columns = [_column(table[name]) for name in table.column_names]
    file = io.BytesIO()
    csv.write_csv(pa.table(columns, names=table.column_names), file)
    return file.getvalue()


def _column(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if pa.types.is_floating(column.type):
        return _round(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pc.if_else(
            pc.match_substring_regex(column, _FORMULA),
            pc.binary_join_element_wise("'", column, ""),
            column,
        )
    return column


def _round(column: pa.ChunkedArray) -> pa.Array:
    """Round to 9 significant digits, of which pyarrow then writes no more than needed."""
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    short = [float(f"{value:.{_DIGITS}g}") for value in values.tolist()]
    return pa.array(short, pa.float64(), mask=column.is_null().to_numpy())
