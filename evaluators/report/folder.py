"""The folder of a report: whether it can hold one, and how a new report replaces an older one.

Files that belong to no report are never touched. index.html is the completion marker and is written
last; after it, the files that only the older report had are removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from engine.errors import RunDirectoryError, StoreError
from engine.system.files import is_temporary, reason, write_whole

INDEX = "index.html"
FOLDERS = ("tables", "figures")
_GENERATOR = re.compile(rb'<meta name="generator" content="xsample report">')
_LINK = re.compile(rb'href="((?:tables|figures)/[a-z0-9_]+\.(?:csv|png|svg))"')
_HEAD_BYTES = 4096


def check_out(out: Path, known: Iterable[str]) -> None:
    """Check that a report can go into a folder, and create the folder.

    Args:
        out: The folder.
        known: The names of all files that a report can have. A folder with nothing else is a report
            that was interrupted.

    Raises:
        RunDirectoryError: The folder cannot be used, or holds something other than a report.
    """
    if os.path.exists(out) and not os.path.isdir(out):
        raise RunDirectoryError(f"--out {out} is a file: give a folder")
    try:
        names = _file_names(out) if os.path.isdir(out) else set()
        if not _is_report(out) and names - set(known):
            raise RunDirectoryError(
                f"--out {out} is not empty and holds no report: give a new or an empty folder"
            )
        for folder in FOLDERS:
            (out / folder).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"--out {out} cannot be used: {reason(error)}; give another folder"
        ) from None


def replace_report(
    out: Path, files: Mapping[str, bytes], index: bytes, known: Iterable[str]
) -> None:
    """Write the files, then the page, then remove the remaining files of an older report.

    Args:
        out: The folder of the report.
        files: The contents of tables and figures, by their names within `out`.
        index: The page.
        known: The names of all files that a report can have.

    Raises:
        StoreError: A file cannot be written or removed.
    """
    older = _linked_files(out) | set(known)
    for name, content in files.items():
        _write(out / name, content)
    _write(out / INDEX, index)
    for name in sorted(older - set(files)):
        try:
            (out / name).unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{out / name} is of an older report and cannot be removed: {reason(error)}"
            ) from error


def _write(file: Path, content: bytes) -> None:
    write_whole(file, lambda target: target.write(content))


def _file_names(out: Path) -> set[str]:
    """The names of the files in `out` and in the folders of a report; another folder is a name."""
    names: set[str] = set()
    for entry in out.iterdir():
        if entry.name in FOLDERS and entry.is_dir():
            names |= {
                f"{entry.name}/{file.name}" for file in entry.iterdir() if not is_temporary(file)
            }
        elif not is_temporary(entry):
            names.add(entry.name)
    return names


def _is_report(out: Path) -> bool:
    with suppress(OSError), (out / INDEX).open("rb") as page:
        return _GENERATOR.search(page.read(_HEAD_BYTES)) is not None
    return False


def _linked_files(out: Path) -> set[str]:
    """The files to which the report in `out` links; none if there is no report."""
    if not _is_report(out):
        return set()
    with suppress(OSError):
        return {name.decode() for name in _LINK.findall((out / INDEX).read_bytes())}
    return set()
