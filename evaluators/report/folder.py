"""The folder of a report: where one can go, and how one replaces another without touching what is
not its own.

index.html is the completion marker and comes last; the files that an older report linked to and
this one has not are removed after it.
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
_MARKED = re.compile(rb'<meta name="generator" content="xsample report">')
_LINKED = re.compile(rb'href="((?:tables|figures)/[a-z0-9_]+\.(?:csv|png|svg))"')
_HEAD_BYTES = 4096


def check_out(out: Path, known: Iterable[str]) -> None:
    """Raise RunDirectoryError where no report can go; makes the folders.

    `known`: names of all files that a report may have: a folder that holds nothing else is a report
    that was cut short.
    """
    if os.path.exists(out) and not os.path.isdir(out):
        raise RunDirectoryError(f"--out {out} is a file: give a folder")
    try:
        held = _held(out) if os.path.isdir(out) else set()
        if not _is_report(out) and held - set(known):
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
    """Write `files` (by their name within `out`), then the page, then remove what an older report
    leaves behind.

    Raises StoreError.
    """
    older = _linked(out) | set(known)
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


def _held(out: Path) -> set[str]:
    """Files below `out`, two levels deep; what is a folder further down counts as foreign."""
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
        return _MARKED.search(page.read(_HEAD_BYTES)) is not None
    return False


def _linked(out: Path) -> set[str]:
    """The files that the report in `out` links to, if there is one."""
    if not _is_report(out):
        return set()
    with suppress(OSError):
        return {name.decode() for name in _LINKED.findall((out / INDEX).read_bytes())}
    return set()
