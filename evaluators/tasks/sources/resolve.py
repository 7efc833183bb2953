"""Which file, folder or hub id a name of the user means.

An existing path wins; then a name that ends like a data file is a missing file; then `org/name` is
a hub id. URLs are refused: what the library underneath takes for one never comes from a user.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from engine.errors import TaskError
from evaluators.tasks.sources import hub, local
from evaluators.tasks.sources.rows import Reading, shown

_HUB_ID = re.compile(r"(?!buckets/)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


def read(source: str, option: str, columns: str, subset: str | None = None) -> Reading:
    """The rows of a file, a folder or a hub id.

    option:  the setting that named the source ("task", "task_data"), for messages
    columns: what a local copy must hold, in words, for messages
    subset:  which configuration of a hub set, which files of a folder; default: all
    Raises TaskError when there is nothing to read, in one line with the way out.
    """
    path = existing(source)
    if path is not None:
        return local.read_path(path, subset)
    if is_hub_id(source):
        copy = f"--{option.replace('_', '-')} FILE (CSV, JSONL or Parquet; columns {columns})"
        return hub.read_hub(source, subset, copy)
    raise TaskError(f"{option} is {source!r}: {_why_not(source)}")


def existing(source: str) -> Path | None:
    """The path that `source` means, `~` expanded; None if there is none. Raises TaskError where one
    may not look.
    """
    try:
        path = Path(source).expanduser()
        return path if source and path.exists() else None
    except PermissionError as error:
        raise TaskError(f"{source!r} cannot be read: {error.strerror}") from None
    except (OSError, RuntimeError, ValueError):  # too long a name; no such user; a null byte
        return None


def is_hub_id(source: str) -> bool:
    """True for `org/name` that does not look like a data file."""
    return bool(_HUB_ID.fullmatch(source)) and ".." not in source and not local.is_data(source)


def is_place(source: str) -> bool:
    """True for what can only be meant as a path, a URL or a hub id, whether or not anything is
    there.
    """
    return "/" in source or "::" in source or source.startswith("~") or local.is_data(source)


def _why_not(source: str) -> str:
    if "://" in source or "::" in source:
        return "URLs are not read; download it and give the file, or give a hub id (org/name)"
    folder = existing(str(Path(source).parent))
    if folder is None or not folder.is_dir():
        return "there is no such file, and no such folder"
    near = get_close_matches(Path(source).name, [file.name for file in folder.iterdir()], n=3)
    return "there is no such file or folder" + (f" (did you mean {shown(near)}?)" if near else "")
