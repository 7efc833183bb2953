"""What does a report of a large run cost? `xsample report` over a synthetic run: time, memory, bytes a row on disk.

    python -m benchmarks.report [--rows 100_000_000] [--run DIR] [--rounds 3] [--json FILE]

The command is a process of its own, as a user starts it; memory is the peak of the resident memory of it and its
children together, sampled 20 times a second. Without --run a run is made in a temporary folder, and removed again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any, NamedTuple

import psutil
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.result import machine, spread
from benchmarks.synthetic import make_run
from engine.machine import usable_cores

AIMS = {"seconds": 90, "peak_gb": 3, "scalar_bytes_a_row": 24}
LISTS = ("topk_base", "topk_rl")
_SAMPLE_SECONDS = 0.05


class Cost(NamedTuple):
    """What one report took: wall time, peak resident memory in GB (10^9 bytes), and seconds by the stages it names."""

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
    result = {
        "machine": machine(),
        "versions": {name: version(name) for name in ("duckdb", "pyarrow", "matplotlib")},
        "rows": rows,
        "rounds": options.rounds,
        "seconds": spread([cost.seconds for cost in costs]),
        "peak_gb": spread([cost.peak_gb for cost in costs]),
        "rows_a_second": spread([rows / cost.seconds for cost in costs]),
        "stage_seconds": {stage: spread([cost.stages.get(stage, 0.0) for cost in costs]) for stage in costs[0].stages},
        "bytes_a_row": columns,
        "scalar_bytes_a_row": sum(size for name, size in columns.items() if name not in LISTS),
        "list_bytes_a_row": sum(columns[name] for name in LISTS),
        "aims": AIMS,
    }
    console = Console(width=100)
    console.print(costs_table(result), stages_table(result), bytes_table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def report(run: Path, out: Path) -> Cost:
    """The cost of one `xsample report`. Raises RuntimeError with what it said where it fails."""
    command = [sys.executable, "-m", "engine.cli", "report", str(run), "--out", str(out)]
    began = time.perf_counter()
    said, peak = [(began, "start")], [0]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        watch = Thread(target=_watch, args=(process, peak))
        watch.start()
        for line in process.stdout or ():
            said.append((time.perf_counter(), line.strip()))
        watch.join()
    ended = time.perf_counter()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {' | '.join(line for _, line in said[1:])}")
    stages = {line: after - at for (at, line), (after, _) in pairwise(said)}
    return Cost(ended - began, peak[0] / 1e9, stages)


def _watch(process: subprocess.Popen[str], peak: list[int]) -> None:
    """Keep the most memory that the process has had in peak[0], until it ends."""
    while process.poll() is None:
        peak[0] = max(peak[0], _resident(process.pid))
        time.sleep(_SAMPLE_SECONDS)


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


def costs_table(result: dict[str, Any]) -> Table:
    """Time and memory for a reader."""
    made = f"{result['rows']:,} token rows, {result['rounds']} rounds; {result['machine']}"
    shown = Table("", "median", "min-max", "aim", caption=made)
    for name, what, form in (("seconds", "seconds", ".1f"), ("peak_gb", "peak resident memory, GB", ".2f")):
        found = result[name]
        bounds = f"{found['min']:{form}}-{found['max']:{form}}"
        shown.add_row(what, f"{found['median']:{form}}", bounds, f"at most {AIMS[name]}")
    speed = result["rows_a_second"]
    shown.add_row("rows a second", f"{speed['median']:,.0f}", f"{speed['min']:,.0f}-{speed['max']:,.0f}", "")
    return shown


def stages_table(result: dict[str, Any]) -> Table:
    """Seconds by stage for a reader."""
    shown = Table("stage", "seconds", "min-max")
    for stage, found in result["stage_seconds"].items():
        shown.add_row(stage, f"{found['median']:.1f}", f"{found['min']:.1f}-{found['max']:.1f}")
    return shown


def bytes_table(result: dict[str, Any]) -> Table:
    """Bytes a row for a reader, the largest column first."""
    shown = Table(
        "column of tokens", "bytes a row on disk", caption=f"aim: scalars at most {AIMS['scalar_bytes_a_row']}"
    )
    for name, size in sorted(result["bytes_a_row"].items(), key=lambda column: -column[1]):
        shown.add_row(name, f"{size:.3f}")
    shown.add_section()
    shown.add_row("all scalars", f"{result['scalar_bytes_a_row']:.2f}")
    shown.add_row("the two lists", f"{result['list_bytes_a_row']:.2f}")
    return shown


def _resident(process: int) -> int:
    """Bytes of resident memory of a process and all below it; those that have just ended count as none."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for one in (parent, *parent.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--run", type=Path, help="a run directory that is there, instead of a synthetic one")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
