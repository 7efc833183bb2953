"""What does a curve cost? A sweep over budgets as forks of one paired run, against the same budgets
run one by one.

    python -m benchmarks.sweep [--rounds 5] [--samples 2] [--problems 200] [--budget
    0,1,...,unlimited] [--json FILE]

Both contenders use the same pair of engines, loaded once, and take turns in the same run, so
loading is in neither: a user who runs budgets one by one pays it for each of them besides. Both
directions; responses must be equal token for token. Tokens are those that went through a model,
prompts included, cached prefixes not, of both engines.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from typing import Any

import ray
from rich.table import Table

from benchmarks import result
from benchmarks.result import Result, machine, row, speed_up, spread
from engine.core import Trajectory
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.lockstep.worker import Loaded, PolicyWorker
from engine.run.placement import pair_config, ray_cluster
from engine.run.plan import Plan, prepare
from engine.run.settings import load
from evaluators.tasks.registry import load_task

Responses = dict[Trajectory, list[int]]


class CountingWorker(PolicyWorker):
    """PolicyWorker, and how many tokens its engine has computed."""

    def load(self, kv_cache_bytes: int | None) -> Loaded:
        """As it is, with vLLM's scheduler watched."""
        loaded = super().load(kv_cache_bytes)
        self._computed = 0
        scheduler = self._engine.engine_core.engine_core.scheduler
        schedule = scheduler.schedule

        def counted(*arguments: Any) -> Any:
            step = schedule(*arguments)
            self._computed += step.total_num_scheduled_tokens
            return step

        scheduler.schedule = counted
        return loaded

    def computed(self) -> int:
        """Tokens since the last call."""
        computed, self._computed = self._computed, 0
        return computed


def main() -> None:
    """Load the pair, run the rounds, print the table."""
    options = _options()
    whole = _plan(options, options.budget)
    parts = [_plan(options, budget) for budget in options.budget.split(",")]
    with ray_cluster(whole):
        pair = LeaseRunner(pair_config(whole, 0), CountingWorker)
        try:
            pair.start()
            found = run(pair, whole, parts, options)
        finally:
            pair.kill()
    found.publish([table(found)], options.json)


def run(pair: LeaseRunner, whole: Plan, parts: list[Plan], options: argparse.Namespace) -> Result:
    """The rounds: each contender once a round, after one of each that does not count."""
    seconds, tokens = defaultdict(list), defaultdict(list)
    for round_ in range(options.rounds + 1):
        made: dict[str, Responses] = {}
        contenders = [("sweep", [whole]), ("one by one", parts)]
        for name, plans in contenders[:: 1 if round_ % 2 else -1]:
            took, computed, made[name] = carry_out(pair, plans)
            if round_:
                seconds[name].append(took)
                tokens[name].append(computed)
        assert made["sweep"] == made["one by one"], "a fork is not what its budget alone gives"
    settings = {name: getattr(options, name) for name in ("budget", "rounds")}
    return Result(
        "sweep",
        settings | {"responses": whole.work.num_trajectories},
        {f"{name}: seconds": spread(values) for name, values in seconds.items()}
        | {
            f"{name}: tokens computed": spread(list(map(float, values)))
            for name, values in tokens.items()
        },
        {"one by one": speed_up(seconds["sweep"], seconds["one by one"])},
        {"tokens_one_by_one_over_sweep": speed_up(tokens["sweep"], tokens["one by one"])},
    )


def carry_out(pair: LeaseRunner, plans: list[Plan]) -> tuple[float, int, Responses]:
    """Seconds, tokens computed and responses of these plans, one after the other."""
    workers = pair.engines.workers.values()
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


def table(found: Result) -> Table:
    """The result for a reader."""
    made = (
        f"{found.settings['responses']:,} responses, budgets {found.settings['budget']}, both"
        " directions"
    )
    shown = Table("", "seconds", "min-max", "tokens computed", caption=f"{made}; {machine()}")
    for name in ("sweep", "one by one"):
        tokens = found.measured[f"{name}: tokens computed"]["median"]
        shown.add_row(name, *row(found.measured[f"{name}: seconds"]), f"{tokens:,.0f}")
    fewer = found.details["tokens_one_by_one_over_sweep"]["median"]
    shown.add_row("one by one / sweep", *row(found.ratios["one by one"], ".3f"), f"{fewer:.3f}")
    return shown


def _plan(options: argparse.Namespace, budget: str) -> Plan:
    settings = {
        "budget": budget,
        "samples": options.samples,
        "limit": options.problems,
        "device": "cpu",
    }
    config = load(None, settings | {"direction": "both", "out": "unused"})
    return prepare(config, load_task(config))


def _options() -> argparse.Namespace:
    parser = result.options(__doc__, rounds=5)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--budget", default="0,1,2,4,8,16,unlimited")
    return parser.parse_args()


if __name__ == "__main__":
    main()
