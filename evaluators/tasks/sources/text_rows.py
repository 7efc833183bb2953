"""CSV and JSON as they are written: a CSV cell is its text, a JSON value is Python's. Pure
functions on lines.
"""

from __future__ import annotations

import csv
import json
from typing import Any

from engine.errors import TaskError
from evaluators.tasks.sources.rows import Row


def csv_rows(lines: list[str], label: str) -> list[Row]:
    """Rows under a header line; quoted cells may hold line breaks. Raises TaskError, naming the
    line.
    """
    reader = csv.reader(lines, strict=True)
    records: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for cells in reader:
            if "".join(cells).strip() or len(cells) > 1:
                records.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise TaskError(f"{label}, line {line}: not CSV: {error}") from None
    if not records:
        raise TaskError(f"{label} is empty")
    header = [name.strip() for name in records[0][1]]
    if twice := [name for name in header if name and header.count(name) > 1]:
        raise TaskError(f"{label}: two columns are called {twice[0]!r}")
    for line, cells in records[1:]:
        if len(cells) != len(header):
            raise TaskError(
                f"{label}, line {line} has {len(cells)} cells, the header {len(header)}: is a quote"
                " missing?"
            )
    return [
        Row(f"{label}, line {line}", dict(zip(header, cells, strict=True)))
        for line, cells in records[1:]
    ]


def json_rows(lines: list[str], label: str) -> list[Row]:
    """An object a line, or one array of objects. Raises TaskError, naming the line or the row."""
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        values = _parsed("".join(lines), label, 1)
        return [
            _row(f"{label}, row {number}", value) for number, value in enumerate(values, start=1)
        ]
    return [
        _row(f"{label}, line {number}", _parsed(line.rstrip("\n"), label, number))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _row(where: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise TaskError(f"{where} is no JSON object {{...}}, but a {type(value).__name__}")
    return Row(where, value)


def _parsed(text: str, label: str, line: int) -> Any:
    try:
        return json.loads(
            text, parse_constant=lambda _: None
        )  # NaN, as pandas writes a missing cell
    except json.JSONDecodeError as error:
        raise TaskError(f"{label}, line {line + error.lineno - 1}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{label}, line {line}: not JSON: {error}") from None
