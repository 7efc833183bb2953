"""Rows of local files: CSV, JSON Lines, JSON and Parquet, a folder of them, or what `save_to_disk`
made.

Files go through the `datasets` library, but text comes out of it as lines and is parsed here: its
CSV and JSON readers guess types (073 becomes 73, NA nothing, a date a timestamp). The library takes
a path for a pattern or a URL and caches what it reads, so it is given a link in a temporary folder,
and that as its cache.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import TaskError
from engine.system.session import scratch
from evaluators.tasks.sources.quiet import quiet_datasets
from evaluators.tasks.sources.rows import Reading, Row, label, meant, numbered, one_line, root_cause
from evaluators.tasks.sources.text_rows import csv_rows, json_rows

PARSERS: dict[str, Callable[[list[str], str], list[Row]]] = {
    ".csv": csv_rows,
    ".json": json_rows,
    ".jsonl": json_rows,
    ".ndjson": json_rows,
}
MAX_FILES = 1_000
MAX_BYTES = 1 << 30  # of a file of text, unpacked
_SAVED = (
    ["dataset_dict.json"],
    ["dataset_info.json", "state.json"],
)  # what `save_to_disk` leaves in a folder
_NO_DATA = {
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
}


def is_data(name: str) -> bool:
    """True for a file name that ends in a format that is read here; text may be compressed with
    gzip.
    """
    return name.lower().endswith(".parquet") or name.lower().removesuffix(".gz").endswith(
        tuple(PARSERS)
    )


def read_path(path: Path, subset: str | None = None) -> Reading:
    """All rows of a file, or of a folder: of its files named after `subset` if there are any.
    Raises TaskError.
    """
    if path.is_dir():
        if any(all((path / name).is_file() for name in names) for names in _SAVED):
            return _read_saved(path)
        files, notes = _files(path, subset)
        return Reading([_read_file(file) for file in files], notes)
    if not path.is_file():
        raise TaskError(f"{label(path)} is neither a file nor a folder")
    if not is_data(path.name):
        raise TaskError(
            f"{label(path)}: the name of a task file must end in {', '.join(PARSERS)} or .parquet"
        )
    return Reading([_read_file(path)], [])


def _files(folder: Path, subset: str | None) -> tuple[list[Path], list[str]]:
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        kept = sorted(
            name
            for name in names
            if is_data(name) and not name.startswith(".") and name not in _NO_DATA
        )
        found += [Path(parent, name) for name in kept]
        if len(found) > MAX_FILES:
            raise TaskError(
                f"folder {label(folder)} holds more than {MAX_FILES:,} data files: give the "
                "folder of one task"
            )
    if not found:
        raise TaskError(f"folder {label(folder)} holds no CSV, JSONL or Parquet file")
    found = [file for file in found if subset and subset in str(file.relative_to(folder))] or found
    return meant(found, lambda file: str(file.relative_to(folder)), label(folder))


def _read_file(file: Path) -> list[Row]:
    with _readable(file):
        if not file.stat().st_size:
            raise TaskError(f"{label(file)} is empty")
        if file.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            if not pq.read_metadata(file).num_rows:  # the library's reader fails on it
                return []
            with _linked(file, "data.parquet") as (datasets, link, cache):
                table = datasets.Dataset.from_parquet(
                    str(link), cache_dir=cache, keep_in_memory=True
                )
                return numbered(table, label(file))
        lines = _lines(file)
    plain = file.name.lower().removesuffix(".gz")
    return PARSERS[Path(plain).suffix](lines, label(file))


def _lines(file: Path) -> list[str]:
    with _linked(file, "data.txt") as (datasets, link, cache):
        if not link.stat().st_size:
            raise TaskError(f"{label(file)} is empty")
        if link.stat().st_size > MAX_BYTES:
            raise TaskError(
                f"{label(file)} is longer than {MAX_BYTES >> 30} GiB: give a file of problems alone"
            )
        table = datasets.Dataset.from_text(
            str(link), cache_dir=cache, keep_in_memory=True, keep_linebreaks=True, encoding="utf-8"
        )
    lines: list[str] = table["text"][:]
    return [lines[0].removeprefix("\N{BYTE ORDER MARK}"), *lines[1:]]


def _read_saved(folder: Path) -> Reading:
    with _readable(folder), _linked(folder, "saved") as (datasets, link, _):
        saved = datasets.load_from_disk(str(link), keep_in_memory=True)
        if isinstance(saved, datasets.Dataset):
            return Reading([numbered(saved, label(folder))], [])
        splits, notes = meant(list(saved), str, label(folder))
        return Reading(
            [numbered(saved[split], f"{label(folder)}, split {split}") for split in splits], notes
        )


@contextmanager
def _linked(path: Path, name: str) -> Iterator[tuple[Any, Path, str]]:
    """The library, a link to `path` of a harmless name (a gzip file: unpacked), and a cache that
    goes away with it.
    """
    with quiet_datasets() as datasets, scratch() as temporary:
        link = Path(temporary, name)
        if path.suffix.lower() == ".gz":
            with gzip.open(path) as packed, link.open("wb") as unpacked:
                _copy(packed, unpacked)
        else:
            link.symlink_to(path.absolute())
        yield datasets, link, str(temporary)


def _copy(packed: gzip.GzipFile, unpacked: BinaryIO) -> None:
    """As much as may be read and a little more, so that the caller sees that it was too much."""
    while unpacked.tell() <= MAX_BYTES and (block := packed.read(1 << 20)):
        unpacked.write(block)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Boundary to the library: whatever it raises about `path` is that path's fault, and said in
    one line.
    """
    try:
        yield
    except TaskError:
        raise
    except Exception as error:
        cause = root_cause(error)
        reason = (
            "it is not UTF-8 text" if isinstance(cause, UnicodeDecodeError)
            else "it is no gzip file" if isinstance(cause, (gzip.BadGzipFile, EOFError, zlib.error))
            else one_line(cause)
        )  # fmt: skip
        raise TaskError(f"{label(path)} cannot be read: {reason}") from error
