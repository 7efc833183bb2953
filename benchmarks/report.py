"""What does a report of a large run cost? `xsample report` over a synthetic run: time, memory,
bytes a row on disk.

    python -m benchmarks.report [--rows 100_000_000] [--run DIR] [--rounds 3] [--json FILE]

The command is a process of its own, as a user starts it; memory is the peak of the resident memory
of it and its children together, sampled 20 times a second. Without --run a run is made in a
temporary folder, and removed again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow.parquet as pq
from rich.table import Table

from benchmarks import result
from benchmarks.memory import Watch
from benchmarks.result import Result, machine, row, spread
from benchmarks.synthetic import make_run
from engine.system.machine import usable_cores

AIMS = {"seconds": 90, "peak resident memory, GB": 3}
MAX_SCALAR_BYTES = 24  # a row, an aim too
LISTS = ("topk_base", "topk_rl")


class Cost(NamedTuple):
    """What one report took: wall time, peak resident memory in GB (10^9 bytes), and seconds by the
    stages it names.
    """

    seconds: float
    peak_gb: float
    stages: dict[str, float]


def main() -> None:
    """Make the run if there is none, report it, print the tables."""
    options = _options()
    with TemporaryDirectory(prefix="xsample-") as folder:
        run = options.run or Path(folder) / "run"
        if not options.run:
            make_run(run, options.rows, processes=usable_cores())
        rows, columns = bytes_by_column(run)
        costs = [report(run, Path(folder) / f"report-{round_}") for round_ in range(options.rounds)]
    found = Result("report", {"rows": rows, "rounds": options.rounds})
    found.measured = {
        "seconds": spread([cost.seconds for cost in costs]),
        "peak resident memory, GB": spread([cost.peak_gb for cost in costs]),
        "rows/s": spread([rows / cost.seconds for cost in costs]),
    }
    found.details = {
        "stage_seconds": {
            stage: spread([cost.stages.get(stage, 0.0) for cost in costs])
            for stage in costs[0].stages
        },
        "bytes_a_row": columns,
        "scalar_bytes_a_row": sum(size for name, size in columns.items() if name not in LISTS),
        "list_bytes_a_row": sum(columns[name] for name in LISTS),
        "aims": AIMS | {"scalar_bytes_a_row": MAX_SCALAR_BYTES},
        "versions": {name: version(name) for name in ("duckdb", "matplotlib")},
    }
    found.publish([costs_table(found), stages_table(found), bytes_table(found)], options.json)


def report(run: Path, out: Path) -> Cost:
    """The cost of one `xsample report`. Raises RuntimeError with what it said where it fails."""
    command = [sys.executable, "-m", "xsample", "report", str(run), "--out", str(out)]
    began = time.perf_counter()
    said = [(began, "start")]
    with (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
        Watch(process.pid, with_children=True) as watch,
    ):
        for line in process.stdout or ():
            said.append((time.perf_counter(), line.strip()))
    ended = time.perf_counter()
    if process.returncode:
        raise RuntimeError(
            f"{' '.join(command)} failed: {' | '.join(line for _, line in said[1:])}"
        )
    stages = {line: after - at for (at, line), (after, _) in pairwise(said)}
    return Cost(ended - began, watch.peak / 1e9, stages)


def bytes_by_column(run: Path) -> tuple[int, dict[str, float]]:
    """Rows of the tokens of a run, and compressed bytes a row of each column."""
    size: Counter[str] = Counter()
    rows = 0
    for part in sorted((run / "tokens").glob("part-*.parquet")):
        metadata = pq.read_metadata(part)
        rows += metadata.num_rows
        for group in map(metadata.row_group, range(metadata.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                size[column.path_in_schema.split(".")[0]] += column.total_compressed_size
    return rows, {name: total / rows for name, total in size.items()}


def costs_table(found: Result) -> Table:
    """Time and memory for a reader."""
    made = f"{found.settings['rows']:,} token rows, {found.settings['rounds']} rounds; {machine()}"
    shown = Table("", "median", "min-max", "aim", caption=made)
    for (name, cost), form in zip(found.measured.items(), (".1f", ".2f", ",.0f"), strict=True):
        shown.add_row(name, *row(cost, form), f"at most {AIMS[name]}" if name in AIMS else "")
    return shown


def stages_table(found: Result) -> Table:
    """Seconds by stage for a reader."""
    shown = Table("stage", "seconds", "min-max")
    for stage, seconds in found.details["stage_seconds"].items():
        shown.add_row(stage, *row(seconds))
    return shown


def bytes_table(found: Result) -> Table:
    """Bytes a row for a reader, the largest column first."""
    shown = Table(
        "column of tokens",
        "bytes a row on disk",
        caption=f"aim: scalars at most {MAX_SCALAR_BYTES}",
    )
    for name, size in sorted(found.details["bytes_a_row"].items(), key=lambda column: -column[1]):
        shown.add_row(name, f"{size:.3f}")
    shown.add_section()
    shown.add_row("all scalars", f"{found.details['scalar_bytes_a_row']:.2f}")
    shown.add_row("the two lists", f"{found.details['list_bytes_a_row']:.2f}")
    return shown


def _options() -> argparse.Namespace:
    parser = result.options(__doc__, rounds=1)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument(
        "--run", type=Path, help="a run directory that is there, instead of a synthetic one"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
