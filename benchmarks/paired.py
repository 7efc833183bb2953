"""How much does a paired token cost? Lock-step against (a) two independent engines, (b) a request a token.

    python -m benchmarks.paired [--rounds 5] [--sequences 256] [--slots 64] [--json FILE]

All contenders are loaded first and then take turns in the same run, on the same requests: what lock-step produced
in its warm-up sets the lengths for (a) and the tokens for (b), so all three compute the same number of tokens in the
same batches. Microseconds are wall time a token of a sequence that both engines have computed. A profile of the step
is taken in rounds of its own, which do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import ray

from benchmarks.engines import start_plain
from benchmarks.profile import ProfilingWorker
from engine.config import load
from engine.pair import Completed, Job, Pair
from engine.plan import Plan, prepare
from evaluators.tasks import load_task

# A request a token, with vLLM's usual maximum of log-probabilities (a decision needs them), and with none at all.
STEPWISE = {"request_a_token": 20, "request_a_token_bare": None}


def main() -> None:
    """Load everything, run the rounds, print the table."""
    options = _options()
    task = load_task("arithmetic")
    plan = prepare(load(None, {"max_num_seqs": options.slots, "budget": "unlimited", "out": "unused"}), task)
    keys = [key for _, key in zip(range(options.sequences), plan.trajectories(), strict=False)]
    jobs = [plan.job(key) for key in keys]
    with plan.cluster():
        # The same worker, with a stopwatch that is off but in rounds of its own.
        pair = Pair(plan.pair_config(0), ProfilingWorker)
        try:
            pair.start()
            print(json.dumps(run(plan, pair, start_plain(plan), jobs, options), indent=1))
        finally:
            pair.kill()


def run(plan: Plan, pair: Pair, plain: dict[str, Any], jobs: list[Job], options: argparse.Namespace) -> dict[str, Any]:
    """The rounds; every contender once a round. Seconds become microseconds a paired token."""
    _, responses = lockstep(pair, jobs)  # warm-up, and what the others have to compute
    num_tokens = sum(map(len, responses))
    few = jobs[: options.slots]
    prompts = [job.prompt for job in jobs]
    seconds: dict[str, list[float]] = {name: [] for name in ("lockstep", "two_engines", *STEPWISE)}
    independent(plain, prompts, responses, plan.config.top_p)
    for _ in range(options.rounds):
        seconds["two_engines"].append(independent(plain, prompts, responses, plan.config.top_p))
        seconds["lockstep"].append(lockstep(pair, jobs)[0])
        for name, logprobs in STEPWISE.items():
            seconds[name].append(stepwise(plain, few, responses, options.slots, logprobs))
    num_few = sum(map(len, responses[: len(few)]))
    tokens = {name: num_few if name in STEPWISE else num_tokens for name in seconds}
    micros = {name: [1e6 * s / tokens[name] for s in values] for name, values in seconds.items()}
    median = {name: statistics.median(values) for name, values in micros.items()}
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "sequences": len(jobs),
        "slots": options.slots,
        "tokens": num_tokens,
        "us_per_paired_token": {n: {"median": median[n], "min": min(v), "max": max(v)} for n, v in micros.items()},
        "ratio_to_two_engines": _ratio(micros, "lockstep", "two_engines"),
        **{f"ratio_to_{name}": _ratio(micros, "lockstep", name) for name in STEPWISE},
        "profile_us_per_step": profile(pair, jobs),
    }


def lockstep(pair: Pair, jobs: list[Job]) -> tuple[float, list[list[int]]]:
    """The whole path, trace and driver's join included. Seconds and the responses."""
    began = time.perf_counter()
    done = [event for event in pair.run(jobs) if isinstance(event, Completed)]
    seconds = time.perf_counter() - began
    responses: list[list[int]] = [[] for _ in jobs]
    for completed in done:
        table = completed.tokens.select(["sequence", "token"]).to_pydict()
        for sequence, token in zip(table["sequence"], table["token"], strict=True):
            responses[sequence].append(token)
    return seconds, responses


def independent(plain: dict[str, Any], prompts: list[list[int]], responses: list[list[int]], top_p: float) -> float:
    """Contender (a): both plain engines at the same time, same requests, same lengths."""
    lengths = [len(response) for response in responses]
    began = time.perf_counter()
    ray.get([worker.generate.remote(prompts, lengths, top_p) for worker in plain.values()])
    return time.perf_counter() - began


def stepwise(
    plain: dict[str, Any], jobs: list[Job], responses: list[list[int]], slots: int, logprobs: int | None
) -> float:
    """Contender (b): both plain engines at the same time, a request for every token."""
    prompts, few = [job.prompt for job in jobs], responses[: len(jobs)]
    began = time.perf_counter()
    ray.get([w.generate_stepwise.remote(prompts, few, slots, logprobs) for w in plain.values()])
    return time.perf_counter() - began


def profile(pair: Pair, jobs: list[Job]) -> dict[str, float]:
    """Microseconds of a step by part, on the base engine."""
    worker = pair._workers["base"]
    ray.get(worker.start_profile.remote())
    lockstep(pair, jobs)
    return dict(ray.get(worker.stop_profile.remote()))


def _ratio(micros: dict[str, list[float]], name: str, other: str) -> dict[str, float]:
    ratios = [a / b for a, b in zip(micros[name], micros[other], strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sequences", type=int, default=256)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
