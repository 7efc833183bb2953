"""Run directories of strangers, and damaged ones: every command that reads one ends well, or with
one line.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.run.plan import prepare
from engine.run.run_json import manifest_of
from engine.run.settings import load
from engine.store.run_store import RunStore
from evaluators.database.run_tables import open_database
from evaluators.report.build import compare, known_files
from evaluators.report.csv_file import to_csv
from evaluators.report.folder import check_out, replace_report
from evaluators.report.page import render
from evaluators.report.runs import open_runs
from evaluators.report.sections import SECTIONS
from evaluators.tasks.registry import load_task
from tests.support.fuzzing import altered, cases, damaged, judged, quiet, run, texts, values
from tests.support.report_runs import make_run, set_manifest

pytestmark = quiet

SETTINGS = {"limit": 2, "samples": 1, "budget": "0,2", "device": "cpu"}
Mutation = Callable[[Path], None]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run of the embedded pair, as a real one is described and with numbers that were
    drawn.
    """
    config = load(None, SETTINGS)
    plan = prepare(config, load_task(config))
    manifest = manifest_of(plan)
    path = tmp_path_factory.mktemp("sound") / "run"
    problems = [problem.id for problem in plan.problems]
    make_run(path, problems=problems, samples=1, budgets=(0, 2), identity=manifest["identity"])
    set_manifest(path, **manifest)
    return path


# Mutations: each takes a run directory


def manifest_altered(run: Path, draw: st.DrawFn) -> None:
    file = run / draw(st.sampled_from(["run.json", "run.json", "run.json", "summary.json"]))
    if file.is_file():
        file.write_text(json.dumps(draw(altered(json.loads(file.read_bytes())))), encoding="utf-8")


def setting_replaced(run: Path, draw: st.DrawFn) -> None:
    """One value of run.json by another of any type."""
    manifest = json.loads((run / "run.json").read_bytes())
    part = draw(st.sampled_from(sorted(manifest)))
    if isinstance(manifest[part], dict):
        manifest[part][draw(st.sampled_from(sorted(manifest[part])))] = draw(values)
    else:
        manifest[part] = draw(values)
    (run / "run.json").write_text(json.dumps(manifest), encoding="utf-8")


def bytes_damaged(run: Path, draw: st.DrawFn) -> None:
    file = draw(st.sampled_from(files(run)))
    file.write_bytes(draw(damaged(file.read_bytes())))


def replaced_by_something_else(run: Path, draw: st.DrawFn) -> None:
    """A file or folder by a folder, a link, an empty file or nothing."""
    place = draw(st.sampled_from([*files(run), run / "tokens", run / "responses"]))
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    how = draw(
        st.sampled_from(["nothing", "folder", "empty", "link", "loop", "device", "dangling"])
    )
    if how == "folder":
        place.mkdir()
    elif how == "empty":
        place.touch()
    elif how != "nothing":
        targets: dict[str, str | Path] = {
            "link": run / "problems.parquet",
            "loop": place,
            "device": "/dev/null",
            "dangling": "/nowhere/x",
        }
        place.symlink_to(targets[how])


def part_renamed(run: Path, draw: st.DrawFn) -> None:
    """A part, or a copy of one, under a name that is nearly one of a part."""
    names = [
        "part-0.parquet",
        "part-\u0661.parquet",
        "part--1.parquet",
        "part-x.parquet",
        "part-.parquet",
        "x",
        f"part-{'9' * 200}.parquet",
        "part-000001.parquet",
        ".part-0.parquet.1.tmp",
        "part-\udcff.parquet",
    ]
    folder = run / draw(st.sampled_from(["tokens", "responses"]))
    parts = [file for file in files(run) if file.parent == folder]
    if parts:
        source, target = draw(st.sampled_from(parts)), folder / draw(st.sampled_from(names))
        if source != target:
            shutil.copy(source, target)
            if draw(st.booleans()):
                source.unlink()


def table_rewritten(run: Path, draw: st.DrawFn) -> None:
    """A column of a table left out, of another type, or of other values; or a table in place of
    another.
    """
    tables = [file for file in files(run) if file.suffix == ".parquet"]
    file = draw(st.sampled_from(tables))
    try:
        table = pq.read_table(
            draw(st.sampled_from([file, file, file, draw(st.sampled_from(tables))])),
            partitioning=None,
        )
        pq.write_table(rewritten(table, draw), file)
    except (pa.ArrowException, OSError, TypeError, ValueError, OverflowError):
        pass  # this one cannot be written either


def rewritten(table: pa.Table, draw: st.DrawFn) -> pa.Table:
    name = draw(st.sampled_from(table.column_names))
    place = table.column_names.index(name)
    how = draw(st.sampled_from(["drop", "values", "values", "one", "type", "none", "rows"]))
    if how == "drop":
        return table.drop_columns([name])
    if how == "none":
        return table.slice(0, 0)
    if how == "rows":
        return pa.concat_tables([table, table.slice(0, draw(st.integers(0, 5)))])
    if how == "type":
        kind = draw(
            st.sampled_from(
                [pa.string(), pa.int64(), pa.float64(), pa.bool_(), pa.binary(), pa.null()]
            )
        )
        return table.set_column(place, name, table[name].cast(kind, safe=False))
    kind, others = table.schema.field(name).type, others_of(table.schema.field(name).type)
    column = table[name].to_pylist()
    column = [draw(others) for _ in column[:20]] + column[20:] if how == "values" else column
    if how == "one" and column:
        column[draw(st.integers(0, len(column) - 1))] = draw(others)
    return table.set_column(place, pa.field(name, kind), pa.array(column, kind))


def others_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_list(kind):
        return st.none() | st.lists(others_of(kind.value_type), max_size=4)
    if pa.types.is_integer(kind):
        top = 2 ** (kind.bit_width - 1) - 1
        return (
            st.none() | st.sampled_from([0, -1, 1, 12, top, -top - 1]) | st.integers(-top - 1, top)
        )
    if pa.types.is_floating(kind):
        return st.none() | st.floats(width=32)
    if pa.types.is_boolean(kind):
        return st.none() | st.booleans()
    return st.none() | texts.filter(
        lambda text: not any("\ud800" <= char <= "\udfff" for char in text)
    )


def files(run: Path) -> list[Path]:
    return sorted(
        file
        for file in run.rglob("*")
        if file.is_file() and not file.is_symlink() and file.name != ".lock"
    )


MUTATIONS = [
    manifest_altered,
    setting_replaced,
    bytes_damaged,
    replaced_by_something_else,
    part_renamed,
    table_rewritten,
]


def mutated(sound: Path, own: Path, data: st.DataObject) -> Path:
    """A copy of the sound run with one to three mutations."""
    copy = own / "run"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sound, copy)

    @st.composite
    def mutations(draw: st.DrawFn) -> list[str]:
        chosen = draw(st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=3))
        for mutate in chosen:
            if files(copy) and (copy / "run.json").is_file():
                try:
                    mutate(copy, draw)
                except (OSError, ValueError, AttributeError, TypeError):
                    continue  # what an earlier one left is nothing to go on from
        return [mutate.__name__ for mutate in chosen]

    data.draw(mutations())
    return copy


def untouched(own: Path) -> None:
    """Nothing came into being beside the run and what was asked for."""
    assert set(os.listdir(own)) <= {"run", "temporary", "page.html", "report"}, os.listdir(own)


COMMANDS = {
    "verify": ["verify", "RUN", "--all"],
    "grade": ["grade", "RUN", "--workers", "1"],
    "match": ["run", "--match", "RUN", "--criterion", "random", "--dry-run"],
    "score": ["score", "RUN", "--dry-run"],
    "resume": [
        "run",
        "--limit",
        "2",
        "--samples",
        "1",
        "--budget",
        "0,2",
        "--device",
        "cpu",
        "--out",
        "RUN",
        "--dry-run",
    ],
}


@pytest.mark.parametrize("command", COMMANDS)
@cases(20, 0.13)
@given(data=st.data())
def test_a_command_ends_well_or_with_one_line(
    own: Path, sound: Path, command: str, data: st.DataObject
) -> None:
    copy = mutated(sound, own, data)
    run([str(copy) if arg == "RUN" else arg for arg in COMMANDS[command]], own)
    untouched(own)


@cases(25, 0.2)
@given(data=st.data(), to_page=st.booleans(), show_text=st.booleans())
def test_inspect_ends_well_or_with_one_line(
    own: Path, sound: Path, data: st.DataObject, to_page: bool, show_text: bool
) -> None:
    problem = RunStore.read(sound).problems()[0].id
    copy = mutated(sound, own, data)
    page = ["--html", str(own / "page.html")] if to_page else []
    run(["inspect", str(copy), "--problem", problem, *page, *["--show-text"] * show_text], own)
    untouched(own)


@cases(30, 0.1)
@given(data=st.data())
def test_opening_to_resume_ends_well_or_with_one_line(
    own: Path, sound: Path, data: st.DataObject
) -> None:
    manifest = json.loads((sound / "run.json").read_bytes())
    copy = mutated(sound, own, data)

    def resume() -> None:
        with RunStore.open(copy, manifest) as store:
            assert store.num_expected >= 0
            store.done()

    judged(resume, own)
    untouched(own)


@cases(5, 0.05)
@given(data=st.data(), show_text=st.booleans())
def test_a_report_ends_well_or_with_one_line(
    own: Path, sound: Path, data: st.DataObject, show_text: bool
) -> None:
    """All of it but the figures, which take some hundred times as long."""
    copy = mutated(sound, own, data)
    judged(lambda: report_without_figures([copy, sound], own / "report", show_text), own)
    untouched(own)


def report_without_figures(runs: list[Path], out: Path, show_text: bool) -> None:
    with open_database() as database:
        opened = open_runs(database, runs)
        check_out(out, known_files())
        content = compare(database, opened, lambda stage: None, show_text)
        page = render(content.runs, SECTIONS, content.results, {}, content.notes)
    tables = {f"tables/{name}.csv": to_csv(table) for name, table in content.results.tables.items()}
    replace_report(out, tables, page.encode(), known_files())
