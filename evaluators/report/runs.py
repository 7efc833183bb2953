"""The runs of a report: opened as far as they can be read, with names that tell them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import duckdb

from engine.errors import StoreError
from engine.store.manifest import is_gated, is_scored, section
from engine.system.files import read_json
from engine.system.terminal import one_line
from evaluators.database.run_tables import RunTables, open_run


@dataclass(frozen=True, slots=True)
class Run:
    """One run. manifest: its run.json, empty where it cannot be read; tables: None where no
    response can be read.
    """

    name: str
    path: Path
    manifest: dict[str, Any]
    tables: RunTables | None
    notes: tuple[str, ...]

    def section(self, name: str) -> dict[str, Any]:
        """An object of run.json; empty where it is not there, or is something else."""
        return section(self.manifest, name)

    @property
    def is_scored(self) -> bool:
        """Whether the responses are given ones that `xsample score` measured."""
        return is_scored(self.manifest)

    @property
    def is_gated(self) -> bool:
        """Whether the text of its problems must not be published."""
        return is_gated(self.manifest)


def open_runs(database: duckdb.DuckDBPyConnection, runs: Sequence[Path]) -> list[Run]:
    """The runs under their short names; one that is given twice counts once. Raises
    RunDirectoryError.
    """
    paths = list({run.resolve(): run for run in runs}.values())
    return [
        open_as(database, path, name) for path, name in zip(paths, short_names(paths), strict=True)
    ]


def open_as(
    database: duckdb.DuckDBPyConnection, path: Path, name: str, decode: bool = False
) -> Run:
    """The run at `path`; with `decode` damaged parts are looked for. Raises RunDirectoryError where
    there is no run.
    """
    opened = open_run(database, path, name, decode)
    try:
        manifest = read_json(path / "run.json")
    except StoreError:  # of which opening has made a note
        manifest = {}
    return Run(
        name,
        path,
        manifest,
        opened.tables,
        tuple(one_line(f"{name}: {note}") for note in opened.notes),
    )


def short_names(runs: Sequence[Path]) -> list[str]:
    """A name a run: its folder's, with as many folders above it as tell it from its namesakes.
    Printable.

    Names that differ in case only are the same to a database: the later ones are numbered.
    """
    parts = [one_line(run.resolve()).split("/") for run in runs]
    depth = [1] * len(parts)
    while True:
        names = ["/".join(of_run[-length:]) for of_run, length in zip(parts, depth, strict=True)]
        often = Counter(names)
        longer = [
            often[name] > 1 and length < len(of)
            for name, length, of in zip(names, depth, parts, strict=True)
        ]
        if not any(longer):
            return _numbered(names)
        depth = [length + grows for length, grows in zip(depth, longer, strict=True)]


def _numbered(names: Sequence[str]) -> list[str]:
    taken: dict[str, str] = {}
    for name in names:
        candidates = chain([name], (f"{name} ({number})" for number in count(2)))
        free = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken[free.casefold()] = free
    return list(taken.values())
