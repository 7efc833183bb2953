"""The parts of a run directory: their numbers, whose they are, and what a killed run left of them.

A part is a file of tokens and the file of responses of the same number, which is the completion
marker. Each says in its metadata which run it belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import StoreError
from engine.shard import WHOLE, Shard
from engine.system.files import is_temporary, reason, remove

FOLDERS = ("tokens", "responses")
_RUN = b"xsample.run"
_NUMBER = re.compile(r"part-([0-9]{6}|[1-9][0-9]{6,8})\.parquet")  # one name a number


def part_name(number: int) -> str:
    """File name of a part."""
    return f"part-{number:06d}.parquet"


def part_numbers(folder: Path) -> dict[int, str]:
    """Number -> file name of the parts in `folder`; hidden and foreign files are not parts."""
    numbered = ((_NUMBER.fullmatch(part.name), part.name) for part in folder.glob("part-*.parquet"))
    return {int(match[1]): name for match, name in numbered if match}


def marked(table: pa.Table, run: str) -> pa.Table:
    """`table` as a part of the run with this fingerprint."""
    return table.replace_schema_metadata({**table.schema.metadata, _RUN: run.encode()})


def foreign_parts(path: Path, run: str) -> Iterator[Path]:
    """Committed files of `path` that say they belong to another run; those that cannot be read say
    nothing.
    """
    for _, name in sorted(part_numbers(path / "responses").items()):
        for folder in FOLDERS:
            if _run_of(path / folder / name) not in (None, run):
                yield path / folder / name


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


def refuse_foreign(path: Path, run: str) -> None:
    """Raise StoreError where a part is of another run."""
    for part in foreign_parts(path, run):
        raise StoreError(
            f"{part} is a part of another run: move it out of {path}, with the file of that name in"
            " the other folder"
        )


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
