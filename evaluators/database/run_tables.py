"""The tables of one run as DuckDB views, whatever of them is readable; all measurements scan
through here.

DuckDB, because it streams Parquet parts with a hard memory limit, spills what does not fit, unites
parts of different schemas, and a measurement is one readable SQL query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa

from engine.errors import StoreError, XsampleError
from engine.store.run_reader import RunReader, read_run
from engine.store.schema import SCHEMA_VERSION
from engine.system.files import reason
from engine.system.machine import usable_cores
from engine.system.session import scratch
from evaluators.database.parts import missing_columns, readable_parts
from evaluators.database.views import create_views, schema_of

T = TypeVar("T")

MEMORY_LIMIT_MIB = 1536


class NotMeasurable(XsampleError):
    """A measurement cannot be made of a run that is not damaged."""


class MissingColumns(NotMeasurable):
    """It needs columns that no part of the run holds."""


class OutOfMemory(NotMeasurable):
    """It needs more memory than it may have."""


@dataclass(frozen=True, slots=True)
class RunTables:
    """One run. The views are named in SQL; all have the columns of `engine.store.schema`, null
    where a part lacks them.

    name:          what the run is called in tables and figures, unique among the runs of a report
    path:          its directory;  manifest: its run.json, empty where that is unreadable
    responses:     view of the committed responses that are readable
    tokens:        view of their tokens arm_responses: view of the responses of the arms that are
                   looked at: of each direction the one with the largest budget (null, unlimited, is
                   the largest), whose stem holds what the smaller ones share. A direction has one
                   arm there, so (problem, sample, direction) is a trajectory
    arm_tokens:    view of their tokens
    measured:      view of those that both policies have measured: js is neither null nor NaN
    columns:       columns of `tokens` that at least one part holds
    """

    database: duckdb.DuckDBPyConnection
    name: str
    path: Path
    manifest: dict[str, Any]
    responses: str
    tokens: str
    arm_responses: str
    arm_tokens: str
    measured: str
    columns: frozenset[str]

    def query(self, sql: str) -> pa.Table:
        """The rows of a query, all at once. Raises StoreError where a part turns out to be damaged;
        OutOfMemory.
        """
        with self._failures():
            return interruptibly(self.database, lambda: self.database.sql(sql).to_arrow_table())

    def batches(self, sql: str, rows: int = 1 << 16) -> Iterator[pa.RecordBatch]:
        """The rows of a query, streamed. Raises StoreError where a part turns out to be damaged."""
        with self._failures():
            reader = interruptibly(
                self.database, lambda: self.database.sql(sql).to_arrow_reader(rows)
            )
            while (batch := interruptibly(self.database, lambda: next(reader, None))) is not None:
                yield batch

    def kept(self, name: str, sql: str) -> str:
        """The table of a query, by its name in SQL: counted once however many measurements ask for
        it.

        For counts, not for rows: it stays until the run is opened anew. Raises StoreError as
        `query` does.
        """
        table = f"{schema_of(self.name)}.{name}"
        with self._failures():
            create = f"CREATE TABLE IF NOT EXISTS {table} AS {sql}"
            interruptibly(self.database, lambda: self.database.execute(create))
        return table

    def require(self, *columns: str) -> None:
        """Raises MissingColumns where no part of the run holds one of these columns of the
        tokens.
        """
        missing = [name for name in columns if name not in self.columns]
        if missing:
            version = self.manifest.get("schema_version", "unknown")
            raise MissingColumns(
                f"{self.path} holds no {', '.join(missing)} (its schema_version is {version}, now"
                f" {SCHEMA_VERSION}): make the run again with this xsample"
            )

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException):
            raise  # a fault of the query, not of the data
        except duckdb.OutOfMemoryException as error:
            raise OutOfMemory(
                f"{self.path}: a measurement needs more than {MEMORY_LIMIT_MIB} MiB: report fewer"
                " runs at once"
            ) from error
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{self.path}: its tables cannot be read: {reason(error)[:300]}"
            ) from error


def interruptibly(database: duckdb.DuckDBPyConnection, work: Callable[[], T]) -> T:
    """What `work` returns, done in a thread: Ctrl-C and SIGTERM reach this one at once, and end the
    query.

    In the main thread DuckDB would make a RuntimeError of them, and let its own threads go on to
    the end of the query.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            while (
                not future.done()
            ):  # a query that has not begun yet would forget that it is interrupted
                database.interrupt()
                wait([future], timeout=0.05)
            raise


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run as far as it can be read."""

    reader: RunReader
    """Everything but the parts; its manifest is empty where run.json cannot be read."""
    tables: RunTables | None
    """None where no response can be read."""
    notes: tuple[str, ...]
    """What is missing or left out, a line each."""


@contextmanager
def open_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB of our own in memory that spills into a temporary folder and loads nothing from a
    network.
    """
    with scratch() as spill:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{MEMORY_LIMIT_MIB}MiB",
            "threads": str(usable_cores()),
            "temp_directory": str(spill),
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        with duckdb.connect(config=settings) as database:
            yield database


def open_run(
    database: duckdb.DuckDBPyConnection, path: Path, name: str, decode: bool = False
) -> OpenedRun:
    """The run at `path`, called `name` in `database`, also while it is being written; a run of that
    name is replaced.

    Takes what the footers call readable. Where a query then raises StoreError, open the run once
    more with `decode`: every page is decoded first, and parts that are damaged are left out. Raises
    RunDirectoryError where there is no run.json.
    """
    reader = read_run(path, strict=False)
    parts, left_out = readable_parts(reader.parts(), decode)
    notes = [*reader.notes, *left_out]
    if not parts:
        return OpenedRun(reader, None, (*notes, f"{path} holds no responses that can be read"))
    try:
        views = interruptibly(database, lambda: create_views(database, name, parts))
    except duckdb.Error as error:
        if not decode:
            return open_run(database, path, name, decode=True)
        return OpenedRun(
            reader,
            None,
            (*notes, f"{path}: its tables cannot be read: {reason(error)[:300]}"),
        )
    columns = frozenset().union(*(one.schemas["tokens"].names for one in parts))
    tables = RunTables(
        database=database, name=name, path=path, manifest=reader.manifest, columns=columns, **views
    )
    return OpenedRun(reader, tables, (*notes, *missing_columns(parts)))
