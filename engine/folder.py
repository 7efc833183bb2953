"""The folder of a run: where one can go, and what is one."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import RunDirectoryError
from engine.system.files import is_temporary, reason


def create_folder(path: Path) -> None:
    """Make the folder of a run, if it is not there. Raises RunDirectoryError where no run can
    go.
    """
    contents(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"--out {path} cannot be used: {reason(error)}; give another folder"
        ) from None


def contents(path: Path) -> set[str]:
    """What is in the folder, if there is one. Raises RunDirectoryError where no run can go."""
    if os.path.exists(path) and not os.path.isdir(path):  # unlike those of Path, these never raise
        raise RunDirectoryError(f"--out {path} is a file: give a folder")
    try:
        children = path.iterdir() if os.path.isdir(path) else ()
        names = {
            child.name
            for child in children
            if not child.name.startswith(".lock") and not is_temporary(child)
        }
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"--out {path} cannot be used: {reason(error)}; give another folder"
        ) from None
    if names and "run.json" not in names:
        raise RunDirectoryError(
            f"--out {path} is not empty and holds no run.json: give a new or an empty folder"
        )
    return names


def check_is_run(path: Path) -> None:
    """Raise RunDirectoryError where no run.json is to be read."""
    if not os.path.isfile(path / "run.json"):
        is_there = os.path.exists(path)
        what = (
            "holds no run.json"
            if os.path.isdir(path)
            else "is a file"
            if is_there
            else "does not exist"
        )
        raise RunDirectoryError(
            f"run directory {path} {what}: give the --out folder of an `xsample run`"
        )
