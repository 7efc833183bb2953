"""Tidy tables as CSV files that a spreadsheet can open without harm: short numbers, and text that
is no formula.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

_DIGITS = 9  # significant ones of a float
_FORMULA = "^[=+\\-@\\t\\r\\n\N{FULLWIDTH EQUALS SIGN}]"


def to_csv(table: pa.Table) -> bytes:
    """UTF-8 with a header; null is an empty cell, the empty text is "".

    Floats have at most 9 significant digits. A text that a spreadsheet would take for a formula,
    because it begins with = + - @, a tab or a line end, has a ' before it: token texts, problem ids
    and names of runs come from strangers.
    """
    columns = [_column(table[name]) for name in table.column_names]
    file = io.BytesIO()
    csv.write_csv(pa.table(columns, names=table.column_names), file)
    return file.getvalue()


def _column(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    if pa.types.is_floating(column.type):
        return _rounded(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pc.if_else(
            pc.match_substring_regex(column, _FORMULA),
            pc.binary_join_element_wise("'", column, ""),
            column,
        )
    return column


def _rounded(column: pa.ChunkedArray) -> pa.Array:
    """To 9 significant digits; pyarrow writes the shortest text that reads back as the same
    number.
    """
    values = column.to_numpy(zero_copy_only=False).astype(np.float64)
    short = [float(f"{value:.{_DIGITS}g}") for value in values.tolist()]
    return pa.array(short, pa.float64(), mask=column.is_null().to_numpy())
