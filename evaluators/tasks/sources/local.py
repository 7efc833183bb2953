"""Rows of local CSV, JSON and Parquet files, of folders of them, and of what `save_to_disk` wrote.

The `datasets` library reads the files. Text comes out of it as lines and is parsed in
`text_rows.py`, since the library's CSV and JSON readers guess types (073 becomes 73, NA nothing, a
date a timestamp). The library takes a path for a pattern or a URL, and caches what it reads; so it
receives a link in a temporary folder, which is its cache, too.
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
from evaluators.tasks.sources.rows import (
    Reading,
    Row,
    error_line,
    number_rows,
    printable_path,
    root_cause,
    select_test_split,
)
from evaluators.tasks.sources.text_rows import csv_rows, json_rows

PARSERS: dict[str, Callable[[list[str], str], list[Row]]] = {
    ".csv": csv_rows,
    ".json": json_rows,
    ".jsonl": json_rows,
    ".ndjson": json_rows,
}
MAX_FILES = 1_000
MAX_BYTES = 1 << 30
"""Size of a text file, after decompression."""
# The files by which a folder of `save_to_disk` is recognised: of all splits, of one split.
_SAVED = (["dataset_dict.json"], ["dataset_info.json", "state.json"])
_NO_DATA = {
    "config.json",
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
}


def is_data(name: str) -> bool:
    """True for the name of a Parquet file, or of a text file, which gzip may have compressed."""
    name = name.lower()
    return name.endswith(".parquet") or name.removesuffix(".gz").endswith(tuple(PARSERS))


def read_path(path: Path, subset: str | None = None) -> Reading:
    """The rows of a file or a folder.

    Args:
        path: The file or folder.
        subset: In a folder, only files with this in their path are read, if there are any.

    Raises:
        TaskError: There is no data, or it cannot be read.
    """
    if path.is_dir():
        if any(all((path / name).is_file() for name in names) for names in _SAVED):
            return _read_saved(path)
        files, notes = _files(path, subset)
        return Reading([_read_file(file) for file in files], notes)
    if not path.is_file():
        raise TaskError(f"{printable_path(path)} is neither a file nor a folder")
    if not is_data(path.name):
        raise TaskError(
            f"{printable_path(path)}: the name of a task file must end in"
            f" {', '.join(PARSERS)} or .parquet"
        )
    return Reading([_read_file(path)], [])


def _files(folder: Path, subset: str | None) -> tuple[list[Path], list[str]]:
    """The data files of a folder and its subfolders, and notes for the user."""
    label = printable_path(folder)
    files: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        data = (name for name in names if is_data(name) and name not in _NO_DATA)
        files += [Path(parent, name) for name in sorted(data) if not name.startswith(".")]
        if len(files) > MAX_FILES:
            raise TaskError(
                f"folder {label} holds more than {MAX_FILES:,} data files: give the folder of one"
                " task"
            )
    if not files:
        raise TaskError(f"folder {label} holds no CSV, JSONL or Parquet file")

    def name_inside(file: Path) -> str:
        return str(file.relative_to(folder))

    files = [file for file in files if subset and subset in name_inside(file)] or files
    return select_test_split(files, name_inside, label)


def _read_file(file: Path) -> list[Row]:
    label = printable_path(file)
    with _raise_task_errors(file):
        if not file.stat().st_size:
            raise TaskError(f"{label} is empty")
        if file.suffix.lower() == ".parquet":
            return _read_parquet(file)
        lines = _read_lines(file)
    plain = file.name.lower().removesuffix(".gz")
    return PARSERS[Path(plain).suffix](lines, label)


def _read_parquet(file: Path) -> list[Row]:
    import pyarrow.parquet as pq

    if not pq.read_metadata(file).num_rows:  # the library's reader fails on a table without rows
        return []
    with _link(file, "data.parquet") as (datasets, link, cache):
        table = datasets.Dataset.from_parquet(str(link), cache_dir=cache, keep_in_memory=True)
        return number_rows(table, printable_path(file))


def _read_lines(file: Path) -> list[str]:
    """The lines of a UTF-8 file with their line ends, without a byte order mark."""
    label = printable_path(file)
    with _link(file, "data.txt") as (datasets, link, cache):
        if not link.stat().st_size:
            raise TaskError(f"{label} is empty")
        if link.stat().st_size > MAX_BYTES:
            raise TaskError(
                f"{label} is longer than {MAX_BYTES >> 30} GiB: give a file of problems alone"
            )
        table = datasets.Dataset.from_text(
            str(link), cache_dir=cache, keep_in_memory=True, keep_linebreaks=True, encoding="utf-8"
        )
    lines: list[str] = table["text"][:]
    return [lines[0].removeprefix("\N{BYTE ORDER MARK}"), *lines[1:]]


def _read_saved(folder: Path) -> Reading:
    """The rows of a folder that `save_to_disk` wrote."""
    label = printable_path(folder)
    with _raise_task_errors(folder), _link(folder, "saved") as (datasets, link, _):
        saved = datasets.load_from_disk(str(link), keep_in_memory=True)
        if isinstance(saved, datasets.Dataset):
            return Reading([number_rows(saved, label)], [])
        splits, notes = select_test_split(list(saved), str, label)
        tables = [number_rows(saved[split], f"{label}, split {split}") for split in splits]
        return Reading(tables, notes)


@contextmanager
def _link(path: Path, name: str) -> Iterator[tuple[Any, Path, str]]:
    """Give the `datasets` library a harmless name for a file or folder.

    Args:
        path: The file or folder; a gzip file is unpacked.
        name: The harmless name.

    Yields:
        The library, the link or unpacked file, and a cache folder; both are removed at the end.
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
    """Unpack at most a block more than MAX_BYTES, so that the caller sees an excess."""
    while unpacked.tell() <= MAX_BYTES and (block := packed.read(1 << 20)):
        unpacked.write(block)


@contextmanager
def _raise_task_errors(path: Path) -> Iterator[None]:
    """Boundary to the library: turn any exception about `path` into a TaskError of one line."""
    try:
        yield
    except TaskError:
        raise
    except Exception as error:
        reason = _reason(root_cause(error))
        raise TaskError(f"{printable_path(path)} cannot be read: {reason}") from error


def _reason(cause: BaseException) -> str:
    if isinstance(cause, UnicodeDecodeError):
        return "it is not UTF-8 text"
    if isinstance(cause, (gzip.BadGzipFile, EOFError, zlib.error)):
        return "it is no gzip file"
    return error_line(cause)
