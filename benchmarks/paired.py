"""How much does a paired token cost? Lock-step against what vLLM costs without it, on the same
work.

    python -m benchmarks.paired [--model embedded|50m|500m] [--slots 64] [--sequences N] [--length
    L] [--top-p 0.7]
                                [--budget unlimited] [--rounds 7] [--device cpu|cuda] [--json FILE]

Contenders: `lockstep`, trace and the driver's join included; `two_engines`, plain, at the same
time, with vLLM's own sampling; `two_engines_argmax`, the same without any sampling, which is
nobody's rival but the least that two engines can cost; `one_engine`, plain, with the others idle.
All are loaded first and take turns, every second round in reversed order. The lengths of
lock-step's responses in its warm-up are those that the others are asked for, so all compute as many
tokens in the same batches, in as many steps, which is checked. Microseconds are wall time a token
of a sequence. The profile of the step is taken in a round of its own, which does not count; its
floor is `floor`'s. With a budget that runs out, the rest of a response is made by its primary
alone, while plain engines make all of it.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from rich.table import Table

from benchmarks.engines import loaded
from benchmarks.floor import floor
from benchmarks.profile import ProfilingWorker
from benchmarks.result import Result, machine, options, row, speed_up, spread
from benchmarks.workload import Workload, add_options, make_workload
from engine.core import POLICIES
from engine.lockstep.cluster import own_cluster
from engine.lockstep.engine_pair import EnginePair
from engine.lockstep.lease_runner import Completed, LeaseRunner

_NUM_ENGINES = 4
_SHIFT = 0.1  # nats, of the Jensen-Shannon divergence


def main() -> None:
    """Load everything, run the rounds, print the tables."""
    parser = options(__doc__, rounds=7)
    add_options(parser)
    chosen = parser.parse_args()
    workload = make_workload(chosen)
    with own_cluster(_NUM_ENGINES), loaded(workload.config, ProfilingWorker) as (pair, plain):
        result = run(workload, pair, plain, chosen)
    result.publish(tables(result), chosen.json)


def run(
    workload: Workload, pair: LeaseRunner, plain: EnginePair, chosen: argparse.Namespace
) -> Result:
    """The rounds, after one of each contender that does not count."""
    made = lockstep(pair, workload)
    lengths = response_lengths(made, len(workload.jobs))
    sampled = {"temperature": 1.0, "top_p": workload.top_p}
    contenders: dict[str, Callable[[], Any]] = {
        "lockstep": lambda: lockstep(pair, workload),
        "two_engines": lambda: generate(plain, POLICIES, workload, lengths, sampled),
        "two_engines_argmax": lambda: generate(
            plain, POLICIES, workload, lengths, {"temperature": 0.0}
        ),
        "one_engine": lambda: generate(plain, POLICIES[:1], workload, lengths, sampled),
    }
    num_steps = generate(plain, POLICIES, workload, lengths, sampled)
    micros: dict[str, list[float]] = defaultdict(list)
    for round_ in range(chosen.rounds):
        for name in list(contenders)[:: 1 if round_ % 2 else -1]:
            began = time.perf_counter()
            done = contenders[name]()
            micros[name].append(1e6 * (time.perf_counter() - began) / sum(lengths))
            assert name != "lockstep" or response_lengths(done, len(lengths)) == lengths, (
                "other responses than before"
            )
    steps, parts = profile(pair, workload)
    assert chosen.budget != "unlimited" or steps == num_steps, (
        f"lock-step took {steps} steps, plain ones {num_steps}"
    )
    num_threads = max(1, len(workload.config.cores.get("base", "").split(",")))
    ours = micros["lockstep"]
    return Result(
        f"paired {chosen.model}",
        {name: value for name, value in vars(chosen).items() if name not in ("json", "models")},
        {f"{name}, us a paired token": spread(micros[name]) for name in contenders},
        {
            f"{name} over lockstep": speed_up(ours, micros[name])
            for name in contenders
            if name != "lockstep"
        },
        {
            "profile, us a step": parts,
            "floor": asdict(floor(workload, lengths, num_threads)),
            "work": {"tokens": sum(lengths), "steps": steps, **described(made)},
        },
    )


def lockstep(pair: LeaseRunner, workload: Workload) -> pa.Table:
    """The whole path, trace and driver's join included. The rows of all responses."""
    done = [
        event.tokens
        for event in pair.run(workload.jobs, workload.rule)
        if isinstance(event, Completed)
    ]
    return pa.concat_tables(done)


def response_lengths(made: pa.Table, num_jobs: int) -> list[int]:
    """Tokens of each response."""
    lengths = np.bincount(made.column("sequence").to_numpy(), minlength=num_jobs)
    assert lengths.all(), "a response is missing"
    return [int(length) for length in lengths]


def generate(
    plain: EnginePair,
    policies: Sequence[str],
    workload: Workload,
    lengths: list[int],
    sampling: dict[str, Any],
) -> int:
    """Plain engines at the same time, each all the work. Returns the number of steps that each
    took.
    """
    calls = [
        plain.workers[policy].generate.remote(workload.prompts, lengths, sampling)
        for policy in policies
    ]
    (num_steps,) = set(ray.get(calls))
    return int(num_steps)


def profile(pair: LeaseRunner, workload: Workload) -> tuple[int, dict[str, float]]:
    """Steps of the base engine, and microseconds of one by part."""
    worker = pair.engines.workers["base"]
    ray.get(worker.start_profile.remote())
    lockstep(pair, workload)
    steps, parts = ray.get(worker.stop_profile.remote())
    return int(steps), dict(parts)


def described(made: pa.Table) -> dict[str, float]:
    """What the distributions looked like: nuclei of the base, and how often the two policies
    part.
    """
    size, js = (made.column(name).drop_null().to_numpy() for name in ("nucleus_base", "js"))
    if not len(js):
        return {"median nucleus": float(np.median(size))}
    return {
        "median nucleus": float(np.median(size)),
        f"share of js > {_SHIFT}": float((js > _SHIFT).mean()),
    }


def tables(result: Result) -> Iterator[Table]:
    """The result for a reader."""
    shown = Table(
        "contender", "us a paired token", "min-max", "it / lock-step", "min-max", caption=machine()
    )
    for name, us in result.measured.items():
        contender = name.partition(",")[0]
        ratio = result.ratios.get(f"{contender} over lockstep")
        shown.add_row(contender, *row(us), *(row(ratio, ".3f") if ratio else ("1", "")))
    yield shown
    work = ", ".join(f"{value:,.4g} {name}" for name, value in result.details["work"].items())
    parts = Table("part of a step", "us", caption=f"base engine; exchange includes waiting; {work}")
    for name, us in result.details["profile, us a step"].items():
        parts.add_row(name, f"{us:,.0f}")
    for kind in ("memory", "cache"):
        parts.add_row(
            f"floor: weights and KV read from {kind}",
            f"{result.details['floor'][f'us_from_{kind}']:,.0f}",
        )
    yield parts


if __name__ == "__main__":
    main()
