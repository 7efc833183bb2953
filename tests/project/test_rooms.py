"""The rule of the arrows: which room may import which. Every file that ships is read.

xsample -> evaluators -> engine
engine: run -> (lockstep, models) -> (config, store) -> (sampling, system) -> ground
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.paths import ROOT, SHIPPED

# A room of engine, and the rooms that it may import beside the ground and itself.
BELOW = {
    "run": {"lockstep", "models", "config", "store", "sampling", "system"},
    "lockstep": {"store", "sampling", "system"},
    "models": {"config", "store", "sampling", "system"},
    "config": {"sampling"},
    "store": {"system"},
    "sampling": set[str](),
    "system": set[str](),
}
GROUND = {"core", "errors", "arrays", "shard", "advantage"}
# What a room may take of another, where that is not all of it.
ONLY = {
    ("lockstep", "store"): {"engine.store.schema"},
    ("config", "sampling"): {"engine.sampling.rule"},
}
# The pure core: arrays and errors, and the names of the two policies.
SAMPLING_MAY = {"engine.arrays", "engine.errors", "engine.core"}


class Import(NamedTuple):
    """One import of a module of ours. importer, imported: dotted names."""

    importer: str
    imported: str


def module_of(file: Path) -> str:
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


MODULES = {module_of(file) for file in SHIPPED}


def imports(file: Path) -> Iterator[Import]:
    """Every import of ours in a file, also inside functions and for type checkers."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else str(node.module) for name in inner]
        else:
            continue
        for name in names:
            if name.split(".")[0] in ("engine", "evaluators", "xsample"):
                yield Import(module_of(file), name)


IMPORTS = sorted({found for file in SHIPPED for found in imports(file)})


def room_of(module: str) -> str:
    """The room of a module of engine; its own name where it lies on the ground."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "core"


def test_every_file_that_ships_is_looked_at() -> None:
    """A rule that looks at no file passes, so the number of files is part of the rule."""
    assert len(SHIPPED) == len(MODULES) >= 190
    assert len(IMPORTS) >= 600
    rooms = {room_of(name) for name in MODULES if name.startswith("engine.")}
    assert rooms == BELOW.keys() | GROUND


def test_engine_imports_nothing_that_stands_above_it() -> None:
    assert not [i for i in IMPORTS if top(i.importer) == "engine" and top(i.imported) != "engine"]


def test_evaluators_import_nothing_of_the_front_door() -> None:
    wrong = [i for i in IMPORTS if top(i.importer) == "evaluators" and top(i.imported) == "xsample"]
    assert not wrong


@pytest.mark.parametrize("room", BELOW)
def test_a_room_of_engine_imports_only_rooms_below_it(room: str) -> None:
    allowed = BELOW[room] | GROUND | {room}
    own = [found for found in IMPORTS if found.importer.startswith(f"engine.{room}.")]
    assert own
    assert not [found for found in own if room_of(found.imported) not in allowed]
    for (importer, imported), names in ONLY.items():
        taken = {i.imported for i in own if room == importer and room_of(i.imported) == imported}
        assert taken <= names


def test_the_ground_imports_the_ground() -> None:
    ground = [
        found
        for found in IMPORTS
        if top(found.importer) == "engine" and room_of(found.importer) in GROUND
    ]
    assert ground
    assert not [found for found in ground if room_of(found.imported) not in GROUND]
    assert not [found for found in ground if found.importer == "engine.core"]


def test_sampling_knows_arrays_errors_and_the_names_of_the_policies() -> None:
    taken = {i.imported for i in IMPORTS if i.importer.startswith("engine.sampling.")}
    assert {name for name in taken if not name.startswith("engine.sampling.")} <= SAMPLING_MAY


def test_no_files_import_each_other_in_a_circle() -> None:
    below: dict[str, set[str]] = {name: set() for name in MODULES}
    for importer, imported in IMPORTS:
        below[importer].add(imported)
    finished: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in finished:
            for imported in below.get(name, ()):
                visit(imported, (*path, name))
            finished.add(name)

    for name in below:
        visit(name, ())


def top(module: str) -> str:
    return module.split(".")[0]
