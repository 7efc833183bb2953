"""Files that are written whole or not at all, durably, and errors that name them.

A file is written under a hidden temporary name in its own folder, synced and renamed, and then the
folder is synced: a reader sees the old file or the new one, also after a power cut. Knows nothing
of runs.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import StoreError

_MAX_NAME = 80  # characters


def write_whole(target: Path, write: Callable[[BinaryIO], Any], replace: bool = True) -> None:
    """Write a file whole or not at all, durably.

    Args:
        target: The file.
        write: Writes the content into the open temporary file.
        replace: Whether to replace a file that exists. If not, that file stays, also one that
            another process creates at the same moment.

    Raises:
        StoreError: The file cannot be written.
    """
    # Random, so that two processes that write one file, such as two that grade one run, do not
    # write into each other's.
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:  # a new file: never through a link
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if replace or not _link(temporary, target):
            temporary.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise StoreError(
            f"{target} cannot be written: {reason(error)}; mend that and run the same command again"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _link(temporary: Path, target: Path) -> bool:
    """Give the file its name, unless another file has it; False if the file system has no links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        pass
    except OSError:
        return target.exists()
    return True


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there.

    Raises:
        StoreError: It cannot be made.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made: {reason(error)}") from error


def remove(file: Path) -> None:
    """Remove a file if it exists.

    Raises:
        StoreError: The file exists and cannot be removed.
    """
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{file} cannot be removed: {reason(error)}") from error


def write_json(target: Path, value: dict[str, Any], replace: bool = True) -> None:
    """Write a JSON object, as `write_whole` does.

    Args:
        target: The file.
        value: The object. JSON has no NaN and no infinity: they become null.
        replace: Whether to replace a file that exists.

    Raises:
        StoreError: The file cannot be written.
    """
    value = _replace_non_finite(value)
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(target, lambda file: file.write(text.encode("utf-8")), replace)


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        StoreError: The file cannot be read, or holds something else.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{file} cannot be read: {reason(error)}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{file} cannot be read: it holds no JSON object")
    return value


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as durable as the contents of its files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(file: Path) -> bool:
    """Whether `write_whole` made this name; a killed process may leave such a file behind."""
    return file.name.startswith(".") and file.name.endswith(".tmp")


def reason(error: BaseException) -> str:
    """The message of an error on one line; of an OSError without its number and its path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())


def safe_name(text: str) -> str:
    """A file name for any text: short, of plain characters, and of no other text."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", text)[:_MAX_NAME].lstrip(".")
    if plain == text:
        return text
    return f"{plain}-{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]}"


def _replace_non_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
