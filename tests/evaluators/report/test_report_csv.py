"""CSV files of a report: the table's own values, short numbers, and no formulas."""

import io
import math

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import csv

from evaluators.report.csv_file import to_csv


def read(table: pa.Table) -> pa.Table:
    types = csv.ConvertOptions(
        column_types=table.schema,
        strings_can_be_null=True,
        null_values=[""],
        quoted_strings_can_be_null=False,
    )
    return csv.read_csv(
        io.BytesIO(to_csv(table)),
        convert_options=types,
        parse_options=csv.ParseOptions(newlines_in_values=True),
    )


@given(st.lists(st.none() | st.floats(allow_nan=False)))
def test_a_float_keeps_nine_digits(values: list[float | None]) -> None:
    back = read(
        pa.table(
            {"x": pa.array(values, pa.float64()), "n": pa.array(range(len(values)), pa.int64())}
        )
    )
    for value, found in zip(values, back["x"].to_pylist(), strict=True):
        assert (found is None) == (value is None)
        assert value is None or value == found or math.isclose(value, found, rel_tol=1e-8)
    assert back["n"].to_pylist() == list(range(len(values)))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"))))
def test_a_text_is_read_back_with_a_quote_before_what_would_be_a_formula(values: list[str]) -> None:
    table = pa.table(
        {"text": pa.array(values, pa.string()), "n": pa.array(range(len(values)), pa.int64())}
    )
    expected = [
        f"'{text}" if text[:1] and text[0] in "=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}" else text
        for text in values
    ]
    assert read(table)["text"].to_pylist() == expected


def test_a_negative_number_is_no_formula() -> None:
    assert to_csv(pa.table({"x": [-1.5], "n": [-2]})) == b'"x","n"\n-1.5,-2\n'


def test_null_is_empty_and_the_empty_text_is_quoted() -> None:
    assert (
        to_csv(pa.table({"x": pa.array([None, ""], pa.string()), "n": [1, 2]}))
        == b'"x","n"\n,1\n"",2\n'
    )
