"""Which parts of a run directory can be read, judged by their footers or by all their pages.

A part is a file of responses and the file of tokens of the same number. Runs of older schema
versions lack columns and are welcome. A part is left out, and a note says why, in three cases: a
file is missing or damaged, it lacks a column that identifies its rows, or a column has a type whose
values ours cannot hold. Knows no DuckDB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.core import TRAJECTORY_KEY
from engine.store.parts import PartFiles
from engine.store.schema import RESPONSES, TOKENS
from engine.system.files import reason

_SCHEMAS = {"tokens": TOKENS, "responses": RESPONSES}
_ESSENTIAL = {
    "tokens": (*TRAJECTORY_KEY, "position", "token"),
    "responses": (*TRAJECTORY_KEY, "token_ids", "tokens"),
}
_UNREADABLE = (OSError, pa.ArrowException, ValueError)


@dataclass(frozen=True, slots=True)
class Part:
    """A readable part: its two files and, for each, which of our columns it has."""

    files: dict[str, Path]
    """By folder: `tokens`, `responses`."""
    schemas: dict[str, pa.Schema]
    """By folder: those of our columns that the file has, with the types that it has them in."""


class _LeftOutError(Exception):
    """Why a part is left out; `readable_parts` makes a note of it."""


def readable_parts(parts: Sequence[PartFiles], decode: bool) -> tuple[list[Part], list[str]]:
    """The parts that can be read, and a note for each part that is left out.

    Args:
        parts: The committed parts of a run.
        decode: Also decode every page of every file, which takes as long as reading the whole run.
    """
    readable, notes = [], []
    for part in parts:
        try:
            files = {"tokens": part.tokens, "responses": part.responses}
            readable.append(_part(files, decode))
        except _LeftOutError as left_out:
            notes.append(f"{part.name} is left out: {left_out}")
    return readable, notes


def missing_columns(parts: Sequence[Part]) -> list[str]:
    """A note for each column of the tokens that some parts lack and others have."""
    lacking = {
        name: sum(name not in part.schemas["tokens"].names for part in parts)
        for name in TOKENS.names
    }
    some = [name for name in TOKENS.names if 0 < lacking[name] < len(parts)]
    return [f"{lacking[name]} of {len(parts)} parts hold no {name}" for name in some]


def _part(files: dict[str, Path], decode: bool) -> Part:
    schemas = {folder: _schema(folder, file) for folder, file in files.items()}
    if decode:
        for folder, file in files.items():
            _decode(file, schemas[folder].names)
    return Part(files, schemas)


def _schema(folder: str, file: Path) -> pa.Schema:
    """Those of our columns that the footer of a file names.

    Raises:
        _LeftOutError: The footer cannot be read, lacks a column, or has one of an unfit type.
    """
    ours = _SCHEMAS[folder]
    try:
        stored = pq.read_schema(file).remove_metadata()
    except _UNREADABLE as error:
        raise _LeftOutError(f"{folder}/{file.name} cannot be read ({reason(error)})") from None
    known = [field for field in stored if field.name in ours.names]
    for field in known:
        wanted = ours.field(field.name).type
        if not _holds(wanted, field.type):
            raise _LeftOutError(
                f"{folder}/{file.name} has {field.name} as {field.type}, not {wanted}"
            )
    lacking = [name for name in _ESSENTIAL[folder] if name not in stored.names]
    if lacking:
        raise _LeftOutError(f"{folder}/{file.name} has no column {', '.join(lacking)}")
    return pa.schema(known)


def _holds(ours: pa.DataType, stored: pa.DataType) -> bool:
    """Whether every value of type `stored` is one of type `ours`; a float may lose digits."""
    kinds = pa.types
    if kinds.is_dictionary(stored):
        return _holds(ours, stored.value_type)
    if kinds.is_list(ours):
        is_list = kinds.is_list(stored) or kinds.is_large_list(stored)
        return is_list and _holds(ours.value_type, stored.value_type)
    if kinds.is_signed_integer(ours):
        return bool(kinds.is_signed_integer(stored) and stored.bit_width <= ours.bit_width)
    if kinds.is_string(ours):
        return bool(kinds.is_string(stored) or kinds.is_large_string(stored))
    return bool(kinds.is_floating(stored) if kinds.is_floating(ours) else ours == stored)


def _decode(file: Path, columns: list[str]) -> None:
    """Decode every page of these columns.

    Raises:
        _LeftOutError: A page cannot be decoded, or rows are missing.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            num_rows = sum(batch.num_rows for batch in parquet.iter_batches(columns=columns))
            if num_rows != parquet.metadata.num_rows:
                raise _LeftOutError(f"{file.parent.name}/{file.name} holds fewer rows than it says")
    except _UNREADABLE as error:
        raise _LeftOutError(
            f"{file.parent.name}/{file.name} cannot be decoded ({reason(error)})"
        ) from None
