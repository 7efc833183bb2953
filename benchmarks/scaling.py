"""How does the cost of a paired token change with pairs, slots, length or nucleus size?

    python -m benchmarks.scaling --over pairs|slots|length|top_p [--values A,B,C] [--model
    embedded|50m|500m]
                                 [--rounds 3] [--json FILE] [other options of benchmarks.paired]

Every value has pairs of its own; all are loaded before anything is timed, and the values take
turns. The work goes through the Scheduler, as in a run. Microseconds are wall time a token of a
sequence, of all pairs together; pairs that share cores are measured as they are, and two of them on
two cores cannot be faster than one.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from benchmarks.result import Result, machine, options, row, spread
from benchmarks.workload import Workload, add_options, make_workload
from engine.lockstep.cluster import own_cluster
from engine.lockstep.engine_pair import PairConfig
from engine.lockstep.lease_runner import LeaseRunner
from engine.run.scheduler import Done, GivenUp, Scheduler

_VALUES = {"pairs": "1,2", "slots": "16,64,128", "length": "128,1024", "top_p": "0.7,0.95,1.0"}
_TYPES = {"pairs": int, "slots": int, "length": int, "top_p": float}


class LoadedPair(LeaseRunner):
    """A pair that is loaded once, and outlives the Scheduler that runs it."""

    def __init__(self, config: PairConfig) -> None:
        super().__init__(config)
        self.line = super().start()

    def start(self, tell: object = None) -> str:
        """It has been started."""
        return self.line

    def kill(self) -> None:
        """Not yet: `end` does it."""

    def end(self) -> None:
        """End both engines."""
        super().kill()


@dataclass(frozen=True)
class Point:
    """One value of what is varied."""

    value: Any
    workload: Workload
    pairs: list[LoadedPair]


def main() -> None:
    """Load a point a value, run the rounds, print the table."""
    parser = options(__doc__, rounds=3)
    add_options(parser)
    parser.add_argument("--over", choices=_VALUES, required=True)
    parser.add_argument(
        "--values", help="default: " + ", ".join(f"{k} {v}" for k, v in _VALUES.items())
    )
    chosen = parser.parse_args()
    with loaded(chosen) as points:
        result = run(points, chosen)
    result.publish([table(result, chosen)], chosen.json)


@contextmanager
def loaded(chosen: argparse.Namespace) -> Iterator[list[Point]]:
    """The points, with their engines."""
    values = [
        _TYPES[chosen.over](value) for value in (chosen.values or _VALUES[chosen.over]).split(",")
    ]
    workloads = [workload_at(chosen, value) for value in values]
    with (
        own_cluster(2 * sum(len(workload.configs) for workload in workloads)),
        ExitStack() as stack,
    ):
        points = []
        for value, workload in zip(values, workloads, strict=True):
            pairs = []
            for config in workload.configs:
                pairs.append(LoadedPair(config))
                stack.callback(pairs[-1].end)
            points.append(Point(value, workload, pairs))
        yield points


def workload_at(chosen: argparse.Namespace, value: Any) -> Workload:
    """The workload, with one value of what is varied."""
    if chosen.over == "pairs":
        return make_workload(chosen, value)
    return make_workload(argparse.Namespace(**vars(chosen) | {chosen.over: value}))


def run(points: Sequence[Point], chosen: argparse.Namespace) -> Result:
    """The rounds, after one that does not count."""
    micros: dict[str, list[float]] = defaultdict(list)
    for round_ in range(chosen.rounds + 1):
        for point in points[:: 1 if round_ % 2 else -1]:
            began = time.perf_counter()
            num_tokens = carry_out(point)
            if round_:
                micros[f"{point.value}"].append(1e6 * (time.perf_counter() - began) / num_tokens)
    return Result(
        f"scaling {chosen.model} over {chosen.over}",
        {name: value for name, value in vars(chosen).items() if name not in ("json", "models")},
        {
            f"{chosen.over} {value}, us a paired token": spread(found)
            for value, found in micros.items()
        },
    )


def carry_out(point: Point) -> int:
    """All of a point's work, on its pairs. Returns the number of tokens."""
    workload, num_tokens = point.workload, 0
    scheduler = Scheduler(point.pairs, workload.jobs, workload.rule, workload.slots)
    try:
        for event in scheduler.events():
            assert not isinstance(event, GivenUp), event
            num_tokens += event.completed.tokens.num_rows if isinstance(event, Done) else 0
    finally:
        scheduler.close()
    return num_tokens


def table(result: Result, chosen: argparse.Namespace) -> Table:
    """The result for a reader."""
    shown = Table(chosen.over, "us a paired token", "min-max", caption=machine())
    for name, us in result.measured.items():
        shown.add_row(name.partition(",")[0], *row(us))
    return shown


if __name__ == "__main__":
    main()
