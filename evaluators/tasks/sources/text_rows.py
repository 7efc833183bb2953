"""Lines of CSV or JSON -> rows, with no guess about types. Pure functions.

A CSV cell is its text (`073` stays `073`); a JSON value is what Python's `json` makes of it.
"""

from __future__ import annotations

import csv
import json
from typing import Any

from engine.errors import TaskError
from evaluators.tasks.sources.rows import Row


def csv_rows(lines: list[str], label: str) -> list[Row]:
    """The rows under a header line; quoted cells may hold line breaks.

    Args:
        lines: The lines of the file, with their line ends.
        label: The file's name, for messages.

    Raises:
        TaskError: The text is not CSV, or a row and the header differ in length.
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
    if repeated := [name for name in header if name and header.count(name) > 1]:
        raise TaskError(f"{label}: two columns are called {repeated[0]!r}")
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
    """The rows of JSON Lines (one object per line) or of one JSON array of objects.

    Args:
        lines: The lines of the file, with their line ends.
        label: The file's name, for messages.

    Raises:
        TaskError: The text is not JSON, or a value is no object.
    """
    first = next((line for line in lines if line.strip()), "")
    if first.lstrip().startswith("["):
        values = _parse("".join(lines), label, 1)
        return [
            _row(f"{label}, row {number}", value) for number, value in enumerate(values, start=1)
        ]
    return [
        _row(f"{label}, line {number}", _parse(line.rstrip("\n"), label, number))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def _row(where: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise TaskError(f"{where} is no JSON object {{...}}, but a {type(value).__name__}")
    return Row(where, value)


def _parse(text: str, label: str, line: int) -> Any:
    try:
        # pandas writes NaN for a missing cell.
        return json.loads(text, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        raise TaskError(f"{label}, line {line + error.lineno - 1}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{label}, line {line}: not JSON: {error}") from None
