"""How fast are responses measured that exist already?

    python -m benchmarks.score [--model embedded|50m|500m] [--sequences 800] [--rounds 5]
                               [--device cpu|cuda] [--json FILE]

The primary makes the responses, which does not count. Contenders: `score`, each response one
prompt, on both engines, the driver's join included; `lockstep`, which decodes a response of the
same prompts on both engines and measures it on the way; `prompt_logprobs`, two plain vLLM engines
that are asked for the 10 most probable tokens at every position of the same texts, at the same
time: a user's own way, which gives no divergence of nuclei. All are loaded first and take turns,
every second round in reversed order.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ray
from rich.table import Table

from benchmarks.engines import loaded
from benchmarks.random_weights import RandomWeightsWorker
from benchmarks.result import Result, machine, options, row, speed_up, spread
from benchmarks.workload import Workload, add_options, make_workload
from engine.core import POLICIES
from engine.lockstep.cluster import own_cluster
from engine.lockstep.engine_pair import EnginePair
from engine.lockstep.job import Job
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.lockstep.merge import rows_of
from engine.sampling.rule import Rule

_NUM_ENGINES = 4
_NUM_SEQUENCES = 800
_NUM_LOGPROBS = 10


def main() -> None:
    """Load everything, run the rounds, print the table."""
    parser = options(__doc__, rounds=5)
    add_options(parser)
    parser.set_defaults(sequences=_NUM_SEQUENCES)
    chosen = parser.parse_args()
    workload = make_workload(chosen)
    with own_cluster(_NUM_ENGINES), loaded(workload.config, RandomWeightsWorker) as (pair, plain):
        result = run(workload, pair, plain, chosen)
    result.publish([table(result)], chosen.json)


def run(
    workload: Workload, pair: LeaseRunner, plain: EnginePair, chosen: argparse.Namespace
) -> Result:
    """The rounds, after one of each contender that does not count."""
    given = responses(workload, pair)
    texts = [job.prompt + (job.external or [])[:-1] for job in given]
    contenders: dict[str, Callable[[], int]] = {
        "score": lambda: carry_out(pair, given, Rule()),
        "lockstep": lambda: carry_out(pair, workload.jobs, workload.rule),
        "prompt_logprobs": lambda: ask_for_logprobs(plain, texts, given),
    }
    rates: dict[str, list[float]] = defaultdict(list)
    for round_ in range(-1, chosen.rounds):
        for name in list(contenders)[:: 1 if round_ % 2 else -1]:
            began = time.perf_counter()
            num_tokens = contenders[name]()
            if round_ >= 0:
                rates[name].append(num_tokens / (time.perf_counter() - began))
    seconds = {name: [1 / rate for rate in found] for name, found in rates.items()}
    return Result(
        f"score {chosen.model}",
        {name: value for name, value in vars(chosen).items() if name not in ("json", "models")},
        {f"{name}, tokens/s": spread(found) for name, found in rates.items()},
        {
            f"{name} over score": speed_up(seconds["score"], found)
            for name, found in seconds.items()
            if name != "score"
        },
        {"responses": len(given), "tokens": sum(len(job.external or []) for job in given)},
    )


def responses(workload: Workload, pair: LeaseRunner) -> list[Job]:
    """The primary's own responses, as jobs that measure them."""
    jobs = [replace(job, budget=0) for job in workload.jobs]
    measuring = {}
    for event in pair.run(jobs, workload.rule):
        if isinstance(event, Completed):
            for index in event.job.tolist():
                ids = rows_of(event.tokens, index).column("token").to_pylist()
                measuring[index] = Job(jobs[index].prompt, 0, True, None, len(ids), external=ids)
    return [measuring[index] for index in range(len(jobs))]


def carry_out(pair: LeaseRunner, jobs: list[Job], rule: Rule) -> int:
    """The whole path, the driver's join included. Returns the number of rows."""
    done = [event for event in pair.run(jobs, rule) if isinstance(event, Completed)]
    return sum(event.tokens.num_rows for event in done)


def ask_for_logprobs(plain: EnginePair, texts: list[list[int]], given: list[Job]) -> int:
    """Plain engines at the same time. Returns the number of tokens of the responses."""
    sampling: dict[str, Any] = {"temperature": 0.0, "prompt_logprobs": _NUM_LOGPROBS}
    calls = [
        plain.workers[policy].generate.remote(texts, [1] * len(texts), sampling)
        for policy in POLICIES
    ]
    ray.get(calls)
    return sum(len(job.external or []) for job in given)


def table(result: Result) -> Table:
    """The result for a reader."""
    work = f"{result.details['responses']:,} responses, {result.details['tokens']:,} tokens"
    shown = Table(
        "contender", "tokens/s", "min-max", "times as long as score", "min-max",
        title=work, caption=machine(),
    )  # fmt: skip
    for name, rate in result.measured.items():
        contender = name.partition(",")[0]
        ratio = result.ratios.get(f"{contender} over score")
        shown.add_row(contender, *row(rate, ",.0f"), *(row(ratio, ".2f") if ratio else ("1", "")))
    return shown


if __name__ == "__main__":
    main()
