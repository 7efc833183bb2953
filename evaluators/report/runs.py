"""The runs of a report: opened as far as they can be read, with names that tell them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import duckdb

from engine.store.manifest import is_gated, is_scored, section
from engine.store.run_reader import RunReader
from engine.system.terminal import one_line
from evaluators.database.run_tables import RunTables, open_run


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a report."""

    name: str
    """A short name that no other run of the report has."""
    reader: RunReader
    tables: RunTables | None
    """None where no response can be read."""
    notes: tuple[str, ...]
    """What is missing or left out, a line each."""

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.reader.path

    @property
    def manifest(self) -> dict[str, Any]:
        """Its run.json; empty where that cannot be read."""
        return self.reader.manifest

    def section(self, name: str) -> dict[str, Any]:
        """An object of run.json; empty where it is not there, or is something else."""
        return section(self.manifest, name)

    @property
    def is_scored(self) -> bool:
        """Whether the responses are external ones that `xsample score` measured."""
        return is_scored(self.manifest)

    @property
    def is_gated(self) -> bool:
        """Whether the text of its problems must not be published."""
        return is_gated(self.manifest)


def open_runs(database: duckdb.DuckDBPyConnection, runs: Sequence[Path]) -> list[Run]:
    """Open runs under their short names; a run that is given twice counts once.

    Raises:
        RunDirectoryError: There is no run at a path.
    """
    paths = list({run.resolve(): run for run in runs}.values())
    return [
        open_as(database, path, name) for path, name in zip(paths, short_names(paths), strict=True)
    ]


def open_as(
    database: duckdb.DuckDBPyConnection, path: Path, name: str, decode: bool = False
) -> Run:
    """Open the run at `path` under a name.

    Args:
        database: Where its tables become views.
        path: The run directory.
        name: Its name in the report.
        decode: Decode every page first, and leave damaged parts out.

    Raises:
        RunDirectoryError: There is no run at the path.
    """
    opened = open_run(database, path, name, decode)
    notes = tuple(one_line(f"{name}: {note}") for note in opened.notes)
    return Run(name, opened.reader, opened.tables, notes)


def short_names(runs: Sequence[Path]) -> list[str]:
    """A printable name for each run: its folder's, with the folders above that tell it apart.

    Names that differ in case only are the same to a database: the later ones are numbered.
    """
    parts = [one_line(run.resolve()).split("/") for run in runs]
    depth = [1] * len(parts)
    while True:
        names = ["/".join(path[-length:]) for path, length in zip(parts, depth, strict=True)]
        times = Counter(names)
        longer = [
            times[name] > 1 and length < len(path)
            for name, length, path in zip(names, depth, parts, strict=True)
        ]
        if not any(longer):
            return _number_equal(names)
        depth = [length + grows for length, grows in zip(depth, longer, strict=True)]


def _number_equal(names: Sequence[str]) -> list[str]:
    taken: dict[str, str] = {}
    for name in names:
        candidates = chain([name], (f"{name} ({number})" for number in count(2)))
        free = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken[free.casefold()] = free
    return list(taken.values())
