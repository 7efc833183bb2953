"""The parts of a run directory: their numbers, whose they are, and what a killed run left of them.

A part is a file of tokens and the file of responses of the same number, which is the completion
marker. Each says in its metadata which run it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StoreError
from engine.shard import WHOLE, Shard
from engine.system.files import is_temporary, reason, remove

FOLDERS = ("tokens", "responses")
_RUN = b"xsample.run"
_NUMBER = re.compile(r"part-([0-9]{6}|[1-9][0-9]{6,8})\.parquet")  # one name a number


class PartFiles(NamedTuple):
    """The two files of one part, which have the same name."""

    name: str
    tokens: Path
    responses: Path


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:06d}.parquet"


def part_numbers(folder: Path) -> dict[int, str]:
    """Number -> file name of the parts in `folder`; hidden and foreign files are not parts."""
    numbered = ((_NUMBER.fullmatch(part.name), part.name) for part in folder.glob("part-*.parquet"))
    return {int(match[1]): name for match, name in numbered if match}


def list_parts(run: Path) -> list[PartFiles]:
    """The committed parts of a run directory, in the order of their numbers."""
    numbers = sorted(part_numbers(run / "responses").items())
    return [PartFiles(name, run / "tokens" / name, run / "responses" / name) for _, name in numbers]


def marked(table: pa.Table, run: str) -> pa.Table:
    """`table` as a part of the run with this fingerprint."""
    return table.replace_schema_metadata({**table.schema.metadata, _RUN: run.encode()})


def foreign_parts(path: Path, run: str) -> Iterator[Path]:
    """Committed files of `path` that say they belong to another run; those that cannot be read say
    nothing.
    """
    for part in list_parts(path):
        for file in (part.tokens, part.responses):
            if _run_of(file) not in (None, run):
                yield file


def refuse_unreadable(path: Path) -> None:
    """Raise StoreError where the footer of a part cannot be read."""
    for name in part_numbers(path / "responses").values():
        for file in (path / folder / name for folder in FOLDERS):
            try:
                pq.read_metadata(file)
            except (OSError, pa.ArrowException, ValueError) as error:
                raise StoreError(
                    f"{file} cannot be read: {reason(error)}; restore it, or remove tokens/{name}"
                    f" and responses/{name} to have these responses made again"
                ) from error


def drop_uncommitted(path: Path, shard: Shard = WHOLE) -> None:
    """Remove what a killed run, or this shard of it, left: temporary files, and tokens whose
    responses never came.
    """
    committed = part_numbers(path / "responses")
    written = part_numbers(path / "tokens")
    for number, name in committed.items():
        if number not in written:
            raise StoreError(
                f"{path}/tokens/{name} is missing though its responses are there: "
                f"put it back, or remove responses/{name} to have these responses made again"
            )
    debris = [
        path / "tokens" / name
        for n, name in written.items()
        if n not in committed and shard.owns(n)
    ]
    if shard == WHOLE:  # else they may be those of another shard that is at work
        debris += [
            file
            for folder in ("", *FOLDERS)
            for file in (path / folder).iterdir()
            if is_temporary(file)
        ]
    for file in debris:
        remove(file)


def _run_of(file: Path) -> str | None:
    try:
        metadata = pq.read_metadata(file).metadata or {}
    except (OSError, pa.ArrowException, ValueError):
        return None
    run = metadata.get(_RUN)
    return None if run is None else str(run, errors="replace")
