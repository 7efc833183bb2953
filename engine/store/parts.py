"""The parts of a run directory: their numbers, the run that they are of, and a killed run's debris.

A part is a file of tokens and the file of responses of the same number, which is the completion
marker. The metadata of each file says which run it belongs to.
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
# A number has exactly one name: zeros pad it to six digits, never beyond.
_NUMBER = re.compile(r"part-([0-9]{6}|[1-9][0-9]{6,8})\.parquet")


class PartFiles(NamedTuple):
    """The two files of one part."""

    name: str
    """The file name that both have, each in its own folder."""
    tokens: Path
    responses: Path


def part_name(number: int) -> str:
    """The file name of the part with this number."""
    return f"part-{number:06d}.parquet"


def part_numbers(folder: Path) -> dict[int, str]:
    """Number -> file name of the parts in `folder`; files with other names are not parts."""
    names = (file.name for file in folder.glob("part-*.parquet"))
    matches = ((_NUMBER.fullmatch(name), name) for name in names)
    return {int(match[1]): name for match, name in matches if match}


def list_parts(run: Path) -> list[PartFiles]:
    """The committed parts of a run directory, in the order of their numbers."""
    numbers = sorted(part_numbers(run / "responses").items())
    return [PartFiles(name, run / "tokens" / name, run / "responses" / name) for _, name in numbers]


def marked(table: pa.Table, run: str) -> pa.Table:
    """A table with the fingerprint of its run in the metadata.

    Args:
        table: The rows of one file of a part.
        run: The fingerprint of the run.
    """
    return table.replace_schema_metadata({**table.schema.metadata, _RUN: run.encode()})


def foreign_parts(path: Path, run: str) -> Iterator[Path]:
    """The committed files that say they belong to another run; unreadable files are skipped.

    Args:
        path: The run directory.
        run: The fingerprint of its own run.
    """
    for part in list_parts(path):
        for file in (part.tokens, part.responses):
            if _run_of(file) not in (None, run):
                yield file


def refuse_unreadable(path: Path) -> None:
    """Check the footers of all committed files.

    Args:
        path: The run directory.

    Raises:
        StoreError: A footer cannot be read.
    """
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
    """Remove what a killed run left: temporary files, and tokens without their responses.

    Args:
        path: The run directory.
        shard: The shard whose tokens are removed. Temporary files are removed only if it is the
            whole run.

    Raises:
        StoreError: The tokens of committed responses are missing, or a file cannot be removed.
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
        for number, name in written.items()
        if number not in committed and shard.owns(number)
    ]
    # Beside other shards, a temporary file may be one that another shard is writing.
    if shard == WHOLE:
        debris += [
            file
            for folder in ("", *FOLDERS)
            for file in (path / folder).iterdir()
            if is_temporary(file)
        ]
    for file in debris:
        remove(file)


def _run_of(file: Path) -> str | None:
    """The fingerprint of the run that a file says it is of; None if it says none or is damaged."""
    try:
        metadata = pq.read_metadata(file).metadata or {}
    except (OSError, pa.ArrowException, ValueError):
        return None
    run = metadata.get(_RUN)
    return None if run is None else str(run, errors="replace")
