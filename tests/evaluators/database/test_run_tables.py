"""Opening a run: whatever of it is readable is there, what is not is in a note, nothing damaged
ends a report.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.core import Trajectory
from engine.errors import RunDirectoryError, StoreError
from engine.store.schema import RESPONSES, TOKENS
from engine.system.signals import Terminated, sigterm_like_ctrl_c
from evaluators.database.run_tables import (
    OpenedRun,
    OutOfMemory,
    RunTables,
    open_database,
    open_run,
)
from evaluators.shifts.sparsity import js_histogram, js_shares
from tests.support.shift_runs import (
    MANIFEST,
    random_run,
    set_version,
    tokens_of,
    trajectories,
    write_run,
)


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    with open_database() as opened:
        yield opened


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three parts: 0, 1 and 2."""
    return random_run(tmp_path / "run", seed=0, num_parts=3)


def count(opened: OpenedRun, view: str = "tokens") -> int:
    assert opened.tables is not None
    return int(
        opened.tables.query(f"SELECT count(*) AS n FROM {getattr(opened.tables, view)}")["n"][
            0
        ].as_py()
    )


def part(run: Path, number: int, folder: str = "tokens") -> Path:
    return run / folder / f"part-{number:06d}.parquet"


def rows_of(run: Path, *numbers: int, folder: str = "tokens") -> int:
    return sum(pq.read_metadata(part(run, number, folder)).num_rows for number in numbers)


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def scribble(file: Path, column: str) -> None:
    """Damage the pages of a column; the footer stays as it is."""
    with pq.ParquetFile(file) as parquet:
        group = parquet.metadata.row_group(0)
        chunk = next(
            c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column
        )
        start = chunk.dictionary_page_offset or chunk.data_page_offset
        length = chunk.total_compressed_size
    data = bytearray(file.read_bytes())
    data[start : start + length] = b"\xff" * length
    file.write_bytes(bytes(data))


# What is there


def test_all_of_a_sound_run_is_there_without_a_note(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    opened = open_run(database, run, "run")
    assert opened.notes == () and opened.tables is not None
    assert (
        opened.tables.columns == set(TOKENS.names) and opened.tables.manifest["schema_version"] == 4
    )
    assert count(opened) == rows_of(run, 0, 1, 2) and count(opened, "responses") == len(
        trajectories()
    )


@pytest.mark.parametrize(("view", "schema"), [("tokens", TOKENS), ("responses", RESPONSES)])
def test_views_have_the_columns_and_types_of_the_record(
    database: duckdb.DuckDBPyConnection, run: Path, view: str, schema: pa.Schema
) -> None:
    tables = open_run(database, run, "run").tables
    assert tables is not None
    found = tables.query(f"FROM {getattr(tables, view)} LIMIT 0").schema
    assert [(f.name, str(f.type).replace("l: ", "item: ")) for f in found] == [
        (f.name, str(f.type)) for f in schema
    ]


def test_of_each_direction_the_arm_with_the_largest_budget_is_looked_at(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    tables = open_run(database, run, "run").tables
    assert tables is not None
    for view in (tables.arm_tokens, tables.measured, tables.arm_responses):
        arms = tables.query(
            f"SELECT DISTINCT direction, budget FROM {view} ORDER BY ALL"
        ).to_pylist()
        assert [tuple(arm.values()) for arm in arms] == [("forward", None), ("reverse", 8)]
    assert (
        tables.query(f"SELECT count(*) AS n FROM {tables.measured} WHERE js IS NULL")["n"][
            0
        ].as_py()
        == 0
    )


def test_runs_of_one_database_do_not_mix(
    database: duckdb.DuckDBPyConnection, run: Path, tmp_path: Path
) -> None:
    key = Trajectory("p", 0, "forward", None)
    other = write_run(tmp_path / "other", {key: tokens_of(key, js=[0.0])})
    opened = [open_run(database, path, name) for path, name in ((run, 'a"b'), (other, "a'b; DROP"))]
    assert [count(one) for one in opened] == [rows_of(run, 0, 1, 2), 1]


def test_a_run_that_grew_is_replaced_under_its_name(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    hidden = part(run, 2, "responses")
    hidden.rename(hidden.with_name(".hidden"))
    first = open_run(database, run, "run")
    assert first.tables is not None
    before = js_histogram(first.tables)
    hidden.with_name(".hidden").rename(hidden)
    second = open_run(database, run, "run")
    assert second.tables is not None and count(second) == rows_of(run, 0, 1, 2)
    assert js_histogram(second.tables) != before


@pytest.mark.parametrize("name", ["a*b", "a[1]", "it's", "q?", "%", "a\\b", "\N{SNOWMAN}"])
def test_a_folder_may_have_any_name(
    database: duckdb.DuckDBPyConnection, tmp_path: Path, name: str
) -> None:
    key = Trajectory("p", 0, "forward", None)
    write_run(tmp_path / "axb", {key: tokens_of(key, js=[0.0, 0.0])})
    run = write_run(tmp_path / name, {key: tokens_of(key, js=[0.0])})
    assert count(open_run(database, run, name)) == 1


def test_a_folder_whose_name_is_no_text_cannot_be_read_and_says_so(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    opened = open_run(database, run.rename(run.with_name("\udcff")), "run")
    assert opened.tables is None and "holds no responses that can be read" in opened.notes[-1]


# Incomplete runs


def test_a_folder_without_a_run_is_refused(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for path, what in (
        (tmp_path, "holds no run.json"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "x", "not exist"),
    ):
        with pytest.raises(RunDirectoryError, match=what):
            open_run(database, path, "run")


def test_a_run_without_responses_yet_says_so(
    database: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    opened = open_run(database, write_run(tmp_path / "run", {}), "run")
    assert opened.tables is None and opened.notes == (
        f"{tmp_path}/run holds no responses that can be read",
    )


def test_tokens_whose_responses_are_not_there_yet_do_not_count(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    part(run, 2, "responses").unlink()
    (run / "tokens" / ".part-000003.parquet.1.tmp").write_bytes(b"PAR1")
    opened = open_run(database, run, "run")
    assert opened.notes == () and count(opened) == rows_of(run, 0, 1)


def test_a_part_of_no_rows_is_a_part(database: duckdb.DuckDBPyConnection, run: Path) -> None:
    for folder in ("tokens", "responses"):
        rewrite(part(run, 1, folder), lambda table: table.slice(0, 0))
    assert count(open_run(database, run, "run")) == rows_of(run, 0, 2)


@pytest.mark.parametrize("text", ["", "[]", "{", "\udcff"])
def test_settings_that_cannot_be_read_are_noted(
    database: duckdb.DuckDBPyConnection, run: Path, text: str
) -> None:
    (run / "run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    opened = open_run(database, run, "run")
    assert opened.tables is not None and opened.tables.manifest == {}
    assert len(opened.notes) == 1 and "run.json cannot be read" in opened.notes[0]


# Other versions


def test_a_run_of_an_older_version_lacks_a_column_and_is_read(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    for number in range(3):
        rewrite(part(run, number), lambda table: table.drop_columns(["primary_token"]))
    set_version(run, 2)
    opened = open_run(database, run, "run")
    assert opened.notes == ("its schema_version is 2, now 4",)
    assert opened.tables is not None and "primary_token" not in opened.tables.columns
    assert js_histogram(opened.tables).num_rows > 0
    nulls = opened.tables.query(f"SELECT count(primary_token) AS n FROM {opened.tables.tokens}")
    assert nulls["n"][0].as_py() == 0


def test_parts_of_different_schemas_are_united(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    rewrite(
        part(run, 1),
        lambda table: table.drop_columns(["primary_token", "js"]).append_column(
            "more", table["js"]
        ),
    )
    rewrite(part(run, 2), lambda table: table.select(table.column_names[::-1]))
    opened = open_run(database, run, "run")
    assert opened.notes == ("1 of 3 parts hold no primary_token", "1 of 3 parts hold no js")
    assert opened.tables is not None and opened.tables.columns == set(TOKENS.names)
    assert count(opened) == rows_of(run, 0, 1, 2)
    assert opened.tables.query(f"SELECT count(js) > 0 AS some FROM {opened.tables.tokens}")["some"][
        0
    ].as_py()


def test_columns_of_a_part_that_are_in_another_order_are_found_by_name(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    first = open_run(database, run, "run")
    assert first.tables is not None
    before = js_shares(first.tables)
    rewrite(part(run, 1), lambda table: table.select(table.column_names[::-1]))
    second = open_run(database, run, "run")
    assert second.tables is not None and js_shares(second.tables) == before


@pytest.mark.parametrize("type_", [pa.float64(), pa.float16()])
def test_other_floats_are_cast(
    database: duckdb.DuckDBPyConnection, run: Path, type_: pa.DataType
) -> None:
    def cast(table: pa.Table) -> pa.Table:
        column = pa.array(
            [None if js is None else np.float16(js) for js in table["js"].to_pylist()], pa.float16()
        )
        return table.set_column(table.column_names.index("js"), "js", column.cast(type_))

    rewrite(part(run, 1), cast)
    opened = open_run(database, run, "run")
    assert opened.notes == () and count(opened, "measured") > 0


@pytest.mark.parametrize(
    ("column", "type_"),
    [
        ("token", pa.string()),
        ("token", pa.int64()),
        ("js", pa.string()),
        ("topk_rl", pa.int32()),
        ("js", pa.null()),
    ],
)
def test_a_part_with_a_type_that_ours_does_not_hold_is_left_out(
    database: duckdb.DuckDBPyConnection, run: Path, column: str, type_: pa.DataType
) -> None:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(
            table.column_names.index(column), column, pa.nulls(table.num_rows, type_)
        )

    rewrite(part(run, 1), change)
    opened = open_run(database, run, "run")
    (note,) = opened.notes
    assert note.startswith(
        f"part-000001.parquet is left out: tokens/part-000001.parquet has {column} as {type_}"
    )
    assert count(opened) == rows_of(run, 0, 2)


@pytest.mark.parametrize(("folder", "column"), [("tokens", "problem"), ("responses", "tokens")])
def test_a_part_without_what_names_its_rows_is_left_out(
    database: duckdb.DuckDBPyConnection, run: Path, folder: str, column: str
) -> None:
    rewrite(part(run, 1, folder), lambda table: table.drop_columns([column]))
    opened = open_run(database, run, "run")
    assert opened.notes == (
        f"part-000001.parquet is left out: {folder}/part-000001.parquet has no column {column}",
    )
    assert count(opened) == rows_of(run, 0, 2)


# Damage


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def fill_with_garbage(file: Path) -> None:
    file.write_bytes(b"no parquet" * 50)


def empty(file: Path) -> None:
    file.write_bytes(b"")


def make_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("folder", ["tokens", "responses"])
@pytest.mark.parametrize("damage", [truncate, fill_with_garbage, empty, make_a_folder])
def test_a_part_whose_footer_is_damaged_is_left_out_with_its_other_half(
    database: duckdb.DuckDBPyConnection, run: Path, folder: str, damage: Callable[[Path], None]
) -> None:
    damage(part(run, 1, folder))
    opened = open_run(database, run, "run")
    (note,) = opened.notes
    assert f"{folder}/part-000001.parquet cannot be read" in note and "\n" not in note
    assert count(opened) == rows_of(run, 0, 2)
    assert count(opened, "responses") == rows_of(run, 0, 2, folder="responses")


def test_responses_whose_tokens_are_missing_are_left_out(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    part(run, 1).unlink()
    opened = open_run(database, run, "run")
    assert len(opened.notes) == 1 and "tokens/part-000001.parquet cannot be read" in opened.notes[0]
    assert count(opened, "responses") == rows_of(run, 0, 2, folder="responses")


def test_a_run_of_damaged_parts_only_says_so(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    shutil.rmtree(run / "tokens")
    opened = open_run(database, run, "run")
    assert (
        opened.tables is None
        and len(opened.notes) == 4
        and "no responses that can be read" in opened.notes[-1]
    )


def test_damaged_pages_raise_a_store_error_and_are_left_out_when_the_run_is_opened_with_decode(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    scribble(part(run, 1), "js")
    opened = open_run(database, run, "run")
    assert opened.notes == () and opened.tables is not None
    with pytest.raises(StoreError, match="its tables cannot be read"):
        js_histogram(opened.tables)
    with pytest.raises(StoreError, match="its tables cannot be read"):
        list(opened.tables.batches(f"SELECT js FROM {opened.tables.tokens}"))
    again = open_run(database, run, "run", decode=True)
    assert (
        len(again.notes) == 1 and "tokens/part-000001.parquet cannot be decoded" in again.notes[0]
    )
    assert again.tables is not None and count(again) == rows_of(run, 0, 2)
    assert js_histogram(again.tables).num_rows > 0


def test_damage_to_what_opening_needs_is_found_at_once(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    scribble(part(run, 1, "responses"), "direction")
    opened = open_run(database, run, "run")
    assert (
        len(opened.notes) == 1
        and "responses/part-000001.parquet cannot be decoded" in opened.notes[0]
    )
    assert count(opened, "responses") == rows_of(run, 0, 2, folder="responses")


def test_a_table_that_was_kept_is_counted_once(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    tables = open_run(database, run, "run").tables
    assert tables is not None
    name = tables.kept("random", "SELECT random() AS number")
    assert tables.query(f"FROM {name}") == tables.query(
        f"FROM {tables.kept('random', 'SELECT random() AS number')}"
    )


def test_nothing_of_a_run_is_written(database: duckdb.DuckDBPyConnection, run: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*")}
    tables = open_run(database, run, "run").tables
    assert isinstance(tables, RunTables) and js_histogram(tables).num_rows > 0
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*")} == before
    assert json.loads((run / "run.json").read_text())["schema_version"] == 4


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_signal_ends_a_query_and_stays_what_it_was(
    number: signal.Signals,
    raised: type[BaseException],
    database: duckdb.DuckDBPyConnection,
    run: Path,
) -> None:
    tables = open_run(database, run, "run").tables
    assert tables is not None
    kill = threading.Timer(0.3, os.kill, (os.getpid(), number))
    with pytest.raises(BaseException) as caught, sigterm_like_ctrl_c():
        kill.start()
        tables.query("SELECT max(hash(range)) AS n FROM range(100_000_000_000)")
    assert caught.type is raised


def test_a_query_that_needs_too_much_memory_is_no_damage(
    database: duckdb.DuckDBPyConnection, run: Path
) -> None:
    tables = open_run(database, run, "run").tables
    assert tables is not None
    database.execute("SET memory_limit = '4MiB'; SET temp_directory = ''")
    with pytest.raises(OutOfMemory, match="needs more than 1536 MiB: report fewer runs"):
        tables.query("SELECT list(range) AS n FROM range(10_000_000)")


def test_a_part_of_another_run_is_left_out_and_named(
    run: Path, tmp_path: Path, database: duckdb.DuckDBPyConnection
) -> None:
    keys = trajectories()[:1]
    rows = {key: tokens_of(key, token=[1, 2]) for key in keys}
    other = write_run(tmp_path / "other", rows, MANIFEST | {"identity": {"seed": 1}})
    for folder in ("tokens", "responses"):
        part(other, 0, folder).rename(part(run, 3, folder))
    opened = open_run(database, run, "run")
    assert "part-000003.parquet is left out: it is a part of another run" in opened.notes
    assert count(opened) == rows_of(run, 0, 1, 2)
