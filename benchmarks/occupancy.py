"""How full are the slots over a run, and where are they empty? Counted in real runs of the embedded
pair.

    python -m benchmarks.occupancy [--problems 200] [--samples 4] [--slots 64] [--json FILE]

A slot-step is one decode step of one slot of one engine. It is used when a sequence is computed in
it, empty in the tail of a phase, when nothing is left to admit, and idle when the engine has no
phase while its twin has one. Counted at vLLM's scheduler in both engines, by lease: the paired
phase, then the solo phases, side by side. Each run goes through the real scheduler, on one pair,
loaded once. Steps do not depend on time: one round says all. What leases cost with lengths that the
embedded pair does not have is modelled in benchmarks/simulate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from rich.table import Table

from benchmarks.result import Result, spread
from engine.core import POLICIES
from engine.lockstep.job import Job
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.lockstep.worker import (
    Decided,
    Finished,
    Loaded,
    PolicyWorker,
    Requests,
    Switched,
)
from engine.run.placement import pair_config, ray_cluster
from engine.run.plan import Plan, prepare
from engine.run.scheduler import Done, Scheduler
from engine.run.settings import load
from engine.sampling.rule import Rule
from engine.sampling.sampler import Phase
from evaluators.tasks.registry import load_task

RUNS = {
    "unlimited": ("unlimited", "both"),
    "budget 8": ("8", "both"),
    "budget 1": ("1", "both"),
    "budget 1, one direction": ("1", "reverse"),
    "budgets 0-8": ("0,1,2,3,4,5,6,7,8", "both"),
}
Phases = dict[
    str, list[tuple[bool, list[int]]]
]  # policy -> its phases: whether paired, and sequences by step


class OccupancyWorker(PolicyWorker):
    """PolicyWorker, and how many sequences its engine has computed in each step."""

    def load(self, kv_cache_bytes: int | None) -> Loaded:
        """As it is, with vLLM's scheduler watched."""
        loaded = super().load(kv_cache_bytes)
        self._phases: list[tuple[bool, list[int]]] = []
        scheduler = self._engine.engine_core.engine_core.scheduler
        schedule = scheduler.schedule

        def counted(*arguments: Any) -> Any:
            step = schedule(*arguments)
            if step.num_scheduled_tokens:
                self._phases[-1][1].append(len(step.num_scheduled_tokens))
            return step

        scheduler.schedule = counted
        return loaded

    def run(
        self, phase: Phase | None, requests: Requests, num_left: int = 0
    ) -> Iterator[Finished | Decided]:
        """As it is; a phase begins, or goes on."""
        if phase:
            self._phases.append((phase.paired, []))
        yield from super().run(phase, requests, num_left)

    def switch(self, model: str) -> Iterator[Switched]:
        """As it is; the step of its probe is no step of a paired phase."""
        self._phases.append((False, []))
        yield from super().switch(model)

    def phases(self) -> list[tuple[bool, list[int]]]:
        """Those since the last call."""
        phases, self._phases = self._phases, []
        return phases


class WatchedPair(LeaseRunner):
    """A Pair that keeps its engines over several schedulers, and notes their phases after every
    lease.
    """

    def __init__(self, plan: Plan, worker_class: type[PolicyWorker] = OccupancyWorker) -> None:
        super().__init__(pair_config(plan, 0), worker_class)
        self.leases: list[dict[str, Any]] = []

    def start(self, tell: Callable[[str], object] = lambda line: None) -> str:
        """Once."""
        return "ready" if self.engines.workers else super().start(tell)

    def kill(self) -> None:
        """Not before `end`."""

    def end(self) -> None:
        super().kill()

    def run(self, jobs: Any, rule: Rule) -> Iterator[Completed | Decided]:
        """As it is."""
        yield from super().run(jobs, rule)
        self.leases.append(
            {
                policy: ray.get(worker.phases.remote())
                for policy, worker in self.engines.workers.items()
            }
        )


@dataclass
class SlotSteps:
    """Slot-steps of both engines in one kind of phase."""

    used: int = 0
    tail: int = 0
    idle: int = 0
    steps: dict[str, int] = field(default_factory=lambda: dict.fromkeys(POLICIES, 0))

    def add(self, rows: dict[str, list[int]], slots: int) -> None:
        """The engines at the same time; [] for one that has nothing to do."""
        together = max(map(len, rows.values()))
        for policy, by_step in rows.items():
            self.used += sum(by_step)
            self.tail += slots * len(by_step) - sum(by_step)
            self.idle += slots * (together - len(by_step))
            self.steps[policy] += len(by_step)

    @property
    def total(self) -> int:
        return self.used + self.tail + self.idle

    def shares(self) -> dict[str, float]:
        """Of all slot-steps."""
        return {name: getattr(self, name) / max(1, self.total) for name in ("used", "tail", "idle")}


def main() -> None:
    """Load the pair, make the runs, print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--problems", type=int, default=200)
    parser.add_argument("--samples", type=int, default=4)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--json", type=Path, help="where the result is written")
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    options = parser.parse_args()
    runs = measure(options)
    shares = {
        f"{name}: slot-steps used, share": spread([one["whole"]["used"]])
        for name, one in runs.items()
    }
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    Result("occupancy", settings, shares, details={"runs": runs}).publish(
        [runs_table(runs)], options.json
    )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Slot-steps by run and kind of phase. They do not depend on time: once is enough."""
    plans = {name: plan(options, *RUNS[name]) for name in options.runs}
    first = next(iter(plans.values()))
    with ray_cluster(first):
        pair = WatchedPair(first)
        try:
            return {name: run(pair, one, options.slots) for name, one in plans.items()}
        finally:
            pair.end()


def run(pair: WatchedPair, planned: Plan, slots: int) -> dict[str, Any]:
    """One run through the scheduler."""
    pair.leases = []
    jobs: list[Job] = [planned.work.job(key) for key in planned.work.trajectories()]
    scheduler = Scheduler([pair], jobs, planned.rule, slots)
    try:
        num_done = sum(
            len(event.completed.job) for event in scheduler.events() if isinstance(event, Done)
        )
    finally:
        scheduler.close()
    assert num_done == len(jobs), f"{num_done} of {len(jobs)} came out"
    kinds = {name: SlotSteps() for name in ("paired", "solo")}
    for lease in pair.leases:
        for name, by_policy in stages(lease):
            kinds[name].add(by_policy, slots)
    whole = SlotSteps(
        *(sum(getattr(kind, name) for kind in kinds.values()) for name in ("used", "tail", "idle"))
    )
    return {
        "leases": len(pair.leases),
        "responses": len(jobs),
        "kinds": {
            name: kind.shares() | {"steps": kind.steps, "slot_steps": kind.total}
            for name, kind in kinds.items()
        },
        "whole": whole.shares() | {"slot_steps": whole.total},
    }


def stages(lease: Phases) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """What the engines of a pair do side by side: each paired phase, then both engines' solo
    phases.
    """
    paired = {
        policy: [rows for is_paired, rows in phases if is_paired]
        for policy, phases in lease.items()
    }
    for together in zip(*paired.values(), strict=True):
        yield "paired", dict(zip(paired, together, strict=True))
    solo = {
        policy: [n for is_paired, rows in phases if not is_paired for n in rows]
        for policy, phases in lease.items()
    }
    if any(solo.values()):
        yield "solo", solo


def runs_table(found: dict[str, Any]) -> Table:
    """Where the slot-steps of the runs went, for a reader."""
    shown = Table(
        "run",
        "phase",
        "slot-steps",
        "used",
        "tail",
        "idle twin",
        "steps base",
        "steps rl",
        "leases",
    )
    for name, one in found.items():
        for kind, shares in (*one["kinds"].items(), ("whole", one["whole"])):
            parts = [f"{shares[part]:.1%}" for part in ("used", "tail", "idle")]
            steps = [f"{number:,}" for number in shares.get("steps", {}).values()] or ["", ""]
            leases = str(one["leases"]) if kind == "whole" else ""
            shown.add_row(
                name if kind == "paired" else "",
                kind,
                f"{shares['slot_steps']:,}",
                *parts,
                *steps,
                leases,
            )
    return shown


def plan(options: argparse.Namespace, budget: str, direction: str) -> Plan:
    """As `xsample run` plans it."""
    settings = {
        "budget": budget,
        "direction": direction,
        "samples": options.samples,
        "limit": options.problems,
    }
    config = load(
        None, settings | {"device": "cpu", "max_num_seqs": options.slots, "out": "unused"}
    )
    return prepare(config, load_task(config))


if __name__ == "__main__":
    main()
