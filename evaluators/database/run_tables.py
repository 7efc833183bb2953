"""The readable tables of one run as DuckDB views, which all measurements scan.

Why DuckDB: it streams Parquet parts within a hard memory limit, spills to disk beyond it, and
unites parts of different schemas; and a measurement is one readable SQL query.
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
    """A measurement cannot be made of this run, though the run is not damaged."""


class MissingColumns(NotMeasurable):
    """A measurement needs columns that no part of the run holds."""


class OutOfMemory(NotMeasurable):
    """A measurement needs more memory than `MEMORY_LIMIT_MIB`."""


@dataclass(frozen=True, slots=True)
class RunTables:
    """The tables of one run, as views that are given by their names in SQL.

    A view has all columns of its table in `engine.store.schema`, null where a part lacks them.
    """

    database: duckdb.DuckDBPyConnection
    name: str
    """The name of the run in tables and figures, unique among the runs of a report."""
    path: Path
    """The run directory."""
    manifest: dict[str, Any]
    """Its run.json; empty if that cannot be read."""
    responses: str
    """View of the committed responses that are readable."""
    tokens: str
    """View of the tokens of `responses`."""
    arm_responses: str
    """View of the responses of one arm per direction: the one with the largest budget.

    Null, unlimited, is the largest. The arms with smaller budgets share their first tokens with
    this one. With one arm per direction, (problem, sample, direction) identifies a trajectory.
    """
    arm_tokens: str
    """View of the tokens of `arm_responses`."""
    measured: str
    """View of those of `arm_tokens` that both policies measured: js is neither null nor NaN."""
    columns: frozenset[str]
    """Columns of `tokens` that at least one part holds."""

    def query(self, sql: str) -> pa.Table:
        """The rows of a query, all at once.

        Args:
            sql: The query.

        Raises:
            StoreError: A part turns out to be damaged.
            OutOfMemory: The query needs more than `MEMORY_LIMIT_MIB`.
        """
        with self._failures():
            return interruptibly(self.database, lambda: self.database.sql(sql).to_arrow_table())

    def batches(self, sql: str, rows: int = 1 << 16) -> Iterator[pa.RecordBatch]:
        """The rows of a query, streamed.

        Args:
            sql: The query.
            rows: Rows per batch, at most.

        Raises:
            StoreError: A part turns out to be damaged.
            OutOfMemory: The query needs more than `MEMORY_LIMIT_MIB`.
        """
        with self._failures():
            reader = interruptibly(
                self.database, lambda: self.database.sql(sql).to_arrow_reader(rows)
            )
            while (batch := interruptibly(self.database, lambda: next(reader, None))) is not None:
                yield batch

    def kept(self, name: str, sql: str) -> str:
        """Keep the rows of a query as a table, so that several measurements share one scan.

        For counts, not for rows: the table stays until the run is opened anew.

        Args:
            name: The name of the table. If the run has such a table, the query is not run again.
            sql: The query.

        Returns:
            The name of the table in SQL.

        Raises:
            StoreError: A part turns out to be damaged.
            OutOfMemory: The query needs more than `MEMORY_LIMIT_MIB`.
        """
        table = f"{schema_of(self.name)}.{name}"
        with self._failures():
            create = f"CREATE TABLE IF NOT EXISTS {table} AS {sql}"
            interruptibly(self.database, lambda: self.database.execute(create))
        return table

    def require(self, *columns: str) -> None:
        """Check that the run has these columns of the tokens.

        Args:
            columns: Names of columns of `engine.store.schema.TOKENS`.

        Raises:
            MissingColumns: No part of the run holds one of them.
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
        """Translate errors of DuckDB and Arrow into ours."""
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
    """Run `work` in a thread, so that Ctrl-C and SIGTERM interrupt the query at once.

    In the main thread DuckDB would turn them into a RuntimeError, while its own threads went on to
    the end of the query.

    Args:
        database: The connection that `work` queries.
        work: Runs the query.

    Returns:
        The result of `work`.
    """
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            # Again and again: a query that has not begun yet forgets that it was interrupted.
            while not future.done():
                database.interrupt()
                wait([future], timeout=0.05)
            raise


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """A run as far as it can be read."""

    reader: RunReader
    """Reads all but the parts; its manifest is empty if run.json cannot be read."""
    tables: RunTables | None
    """None if no response can be read."""
    notes: tuple[str, ...]
    """What is missing or left out, one line each."""


@contextmanager
def open_database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a DuckDB in memory, which spills to a temporary folder and never uses the network."""
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
    """Open a run as views in a database, also while the run is being written.

    By default the footers decide which parts are readable. If a query then raises a StoreError,
    open the run again with `decode`.

    Args:
        database: The database, from `open_database`.
        path: The run directory.
        name: The name of the run in the database; a run of the same name is replaced.
        decode: Decode every page first, and leave out the parts that are damaged.

    Raises:
        RunDirectoryError: There is no run.json.
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
    columns = frozenset().union(*(part.schemas["tokens"].names for part in parts))
    tables = RunTables(
        database=database, name=name, path=path, manifest=reader.manifest, columns=columns, **views
    )
    return OpenedRun(reader, tables, (*notes, *missing_columns(parts)))
