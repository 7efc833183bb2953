"""The user's name for a source -> a file, a folder or a hub id.

Rules, the first that fits:

    an existing path                         that file or folder
    a name that ends like a data file        a missing file, so an error
    `org/name`                               a hub id

URLs are refused, so the `datasets` library underneath never receives one from the user.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from engine.errors import TaskError
from evaluators.tasks.sources import hub, local
from evaluators.tasks.sources.rows import Reading, quote_names

_HUB_ID = re.compile(r"(?!buckets/)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


def read(source: str, option: str, columns: str, subset: str | None = None) -> Reading:
    """The rows of a file, a folder or a hub id.

    Args:
        source: The user's name for the source.
        option: The setting that named the source ("task", "task_data"), for messages.
        columns: The columns that a local copy must hold, in words, for messages.
        subset: A configuration of a hub set, or a part of the file names of a folder; all of the
            source when None.

    Raises:
        TaskError: There is nothing to read, or it cannot be read.
    """
    path = find_path(source)
    if path is not None:
        return local.read_path(path, subset)
    if is_hub_id(source):
        copy = f"--{option.replace('_', '-')} FILE (CSV, JSONL or Parquet; columns {columns})"
        return hub.read_hub(source, subset, copy)
    raise TaskError(f"{option} is {source!r}: {_reason(source)}")


def find_path(source: str) -> Path | None:
    """The existing path that a name stands for, `~` expanded; None if there is none.

    Raises:
        TaskError: A folder on the way may not be read.
    """
    try:
        path = Path(source).expanduser()
        return path if source and path.exists() else None
    except PermissionError as error:
        raise TaskError(f"{source!r} cannot be read: {error.strerror}") from None
    except (OSError, RuntimeError, ValueError):  # name too long; no such user; a null byte
        return None


def is_hub_id(source: str) -> bool:
    """True for `org/name` that does not look like a data file."""
    return bool(_HUB_ID.fullmatch(source)) and ".." not in source and not local.is_data(source)


def is_place(source: str) -> bool:
    """True for a name that has the form of a path, a URL or a hub id, whether it exists or not."""
    return "/" in source or "::" in source or source.startswith("~") or local.is_data(source)


def _reason(source: str) -> str:
    """Why nothing can be read from a name."""
    if "://" in source or "::" in source:
        return "URLs are not read; download it and give the file, or give a hub id (org/name)"
    folder = find_path(str(Path(source).parent))
    if folder is None or not folder.is_dir():
        return "there is no such file, and no such folder"
    near = get_close_matches(Path(source).name, [file.name for file in folder.iterdir()], n=3)
    hint = f" (did you mean {quote_names(near)}?)" if near else ""
    return f"there is no such file or folder{hint}"
