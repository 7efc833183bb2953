"""Is the model of `benchmarks.simulate` right? Real runs of the embedded pair beside their
simulation.

One run calibrates the model: every step of it is timed in both engines, and a line is laid through
the steps by least squares. Its parts are those of the roofline: a fixed part and one of a sequence,
of paired and of solo steps; one of a token of context, and one of a token of a prompt. What is left
of the wall time is shared out to the sequences. Other
runs, with other budgets and directions, are then predicted from it, with the lengths and
interventions that their responses really have.

All runs take turns, and come out the same in every round, step by step. So each step is taken at
its fastest of all rounds, in the calibrating run and in those that are predicted: what others do on
the machine then counts little. The wall time as it was is shown too. The number of steps does not
depend on time at all.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from benchmarks.modelled import Response, Speed
from benchmarks.occupancy import RUNS, WatchedPair, plan
from benchmarks.result import Result, machine, row, spread
from benchmarks.simulate import Workload, simulate
from engine.core import POLICIES
from engine.lockstep.fork import branch
from engine.lockstep.worker import Decided, Finished, Loaded, PolicyWorker, Requests
from engine.run.placement import ray_cluster
from engine.run.plan import Plan
from engine.run.scheduler import Done, Scheduler
from engine.sampling.sampler import Phase

CALIBRATING = "budget 1"
PREDICTED = ("unlimited", "budget 8", "budget 1, one direction", "budgets 0-8")
AIM = 0.15
_SLOTS, _PROBLEMS, _SAMPLES = 64, 64, 2


class TimedPhase(NamedTuple):
    """A phase of one engine: its sequences, and of each step the sequences, the tokens computed,
    the tokens of their contexts together, and the seconds.
    """

    paired: bool
    num_sequences: int
    rows: list[int]
    tokens: list[int]
    context: list[int]
    seconds: list[float]


class TimedWorker(PolicyWorker):
    """PolicyWorker, and what its engine computed in each step, and how long that took."""

    def load(self, kv_cache_bytes: int | None) -> Loaded:
        """As it is, with vLLM's scheduler and step watched."""
        loaded = super().load(kv_cache_bytes)
        self._phases: list[TimedPhase] = []
        scheduler, engine = self._engine.engine_core.engine_core.scheduler, self._engine
        schedule, step = scheduler.schedule, engine.step

        def counted(*arguments: Any) -> Any:
            planned = schedule(*arguments)
            if planned.num_scheduled_tokens:
                self._phases[-1].rows.append(len(planned.num_scheduled_tokens))
                self._phases[-1].tokens.append(planned.total_num_scheduled_tokens)
                computed = [scheduler.requests[id_] for id_ in planned.num_scheduled_tokens]
                self._phases[-1].context.append(sum(one.num_computed_tokens for one in computed))
            return planned

        def timed() -> Any:
            began, num_steps = time.perf_counter(), len(self._phases[-1].rows)
            outputs = step()
            if len(self._phases[-1].rows) > num_steps:
                self._phases[-1].seconds.append(time.perf_counter() - began)
            return outputs

        scheduler.schedule, engine.step = counted, timed
        return loaded

    def run(
        self, phase: Phase | None, requests: Requests, num_left: int = 0
    ) -> Iterator[Finished | Decided]:
        """As it is; a phase begins, or goes on."""
        if phase:
            self._phases.append(TimedPhase(phase.paired, len(requests.prompts), [], [], [], []))
        yield from super().run(phase, requests, num_left)

    def phases(self) -> list[TimedPhase]:
        """Those since the last call."""
        phases, self._phases = self._phases, []
        return phases


class Real(NamedTuple):
    """A run that was made."""

    seconds: float
    workload: Workload
    leases: list[dict[str, list[TimedPhase]]]

    @property
    def steps(self) -> int:
        """Of both engines."""
        sides = [phases for lease in self.leases for phases in lease.values()]
        return sum(len(phase.rows) for phases in sides for phase in phases)

    @property
    def step_seconds(self) -> float:
        """Wall time in steps: of the engine that takes longer, stage by stage."""
        return sum(
            max(sum(sum(one.seconds) for one in phases if one.paired == paired) for phases in sides)
            for lease in self.leases
            for paired in (True, False)
            for sides in [lease.values()]
        )


def validate(rounds: int, json: Path | None) -> None:
    """Make the runs, print how far the predictions are from them."""
    options = argparse.Namespace(problems=_PROBLEMS, samples=_SAMPLES, slots=_SLOTS)
    plans = {name: plan(options, *RUNS[name]) for name in (CALIBRATING, *PREDICTED)}
    made = defaultdict[str, list[Real]](list)
    with ray_cluster(plans[CALIBRATING]):
        pair = WatchedPair(plans[CALIBRATING], TimedWorker)
        try:
            pair.engines.may_switch = False  # when an engine helps depends on time
            carry_out(pair, plans[CALIBRATING])  # warm
            for name in (*plans,) * rounds:
                made[name].append(carry_out(pair, plans[name]))
        finally:
            pair.end()
    speed = calibrate(fastest(made[CALIBRATING]))
    found: dict[str, dict[str, Any]] = {}
    for name in PREDICTED:
        real = fastest(made[name])
        simulated = simulate(real.workload, speed, _SLOTS)
        found[name] = {
            "wall, s": spread([run.seconds for run in made[name]]),
            "undisturbed, s": real.seconds,
            "predicted, s": simulated.seconds,
            "error": simulated.seconds / real.seconds - 1,
            "error of steps": simulated.steps / real.steps - 1,
        }
    measured = {
        f"{name}: predicted / real - 1": spread([one["error"]]) for name, one in found.items()
    }
    Result("simulate --validate", {"rounds": rounds}, measured, details=found).publish(
        [_table(found)], json
    )


def fastest(runs: Sequence[Real]) -> Real:
    """The same run, made several times, with each step at its fastest; so is what is left."""
    leases = []
    for same in zip(*(run.leases for run in runs), strict=True):
        lease: dict[str, list[TimedPhase]] = {}
        for policy in POLICIES:
            phases = zip(*(one[policy] for one in same), strict=True)
            lease[policy] = [_fastest_phase(phase) for phase in phases]
        leases.append(lease)
    rest = min(run.seconds - run.step_seconds for run in runs)
    steps = Real(0.0, runs[0].workload, leases)
    return steps._replace(seconds=steps.step_seconds + rest)


def _fastest_phase(same: Sequence[TimedPhase]) -> TimedPhase:
    assert all(one.rows == same[0].rows for one in same), "a run has come out in other steps"
    return same[0]._replace(seconds=np.min([one.seconds for one in same], axis=0).tolist())


def carry_out(pair: WatchedPair, planned: Plan) -> Real:
    """One run through the scheduler, with what came out."""
    pair.leases = []
    jobs = [planned.work.job(key) for key in planned.work.trajectories()]
    scheduler = Scheduler([pair], jobs, planned.rule, _SLOTS)
    # Job -> rows, interventions, effective ones; and the job that it was forked from.
    rows: dict[int, tuple[int, Any, Any]] = {}
    stems: dict[int, int] = {}
    began = time.perf_counter()
    try:
        for event in scheduler.events():
            if not isinstance(event, Done):
                continue
            number, intervened, effective = (
                event.completed.tokens.column(name).to_numpy()
                for name in ("sequence", "intervened", "effective")
            )
            for index, stem in zip(event.completed.job, event.completed.stem_index, strict=True):
                own = slice(*np.searchsorted(number, (index, index + 1)))
                parts = intervened[own], effective[own]
                rows[event.jobs[index]] = (len(parts[0]), *parts)
                stems[event.jobs[index]] = event.jobs[stem]
        seconds = time.perf_counter() - began
    finally:
        scheduler.close()
    assert len(rows) == len(jobs), f"{len(rows)} of {len(jobs)} came out"
    tails = defaultdict[int, dict[int, int]](dict)
    for job, stem in stems.items():
        if job != stem:
            shared = branch(*rows[stem][1:], jobs[job].interventions_left).shared
            tails[stem][shared] = rows[job][0]
    responses = {
        (jobs[stem].noise_key, jobs[stem].forward): _response(*rows[stem], tails[stem])
        for stem in set(stems.values())
    }
    return Real(seconds, Workload(jobs, responses, 1), pair.leases)


def _response(num_rows: int, intervened: Any, effective: Any, tails: dict[int, int]) -> Response:
    taken = np.flatnonzero(intervened)
    return Response(num_rows, taken, effective[taken], tails)


def calibrate(run: Real) -> Speed:
    """The speed of the pair, by one run."""
    num_sequences = 0
    phases: Mapping[bool, list[TimedPhase]] = {True: [], False: []}
    for lease in run.leases:
        for paired, kind in phases.items():
            sides = [[one for one in lease[policy] if one.paired == paired] for policy in POLICIES]
            kind += [one for side in sides for one in side]
            num_sequences += max(sum(one.num_sequences for one in side) for side in sides)
    rest = run.seconds - run.step_seconds
    lines = _lines([*phases[True], *phases[False]])
    prompt_tokens = float(np.mean([len(job.prompt) for job in run.workload.jobs]))
    return Speed(*lines, prompt_tokens, sequence_s=rest / num_sequences)


@dataclass(frozen=True)
class Line:
    """Seconds of a step: fixed, and of each sequence, token of context and token of a prompt."""

    fixed: float
    by_row: float
    by_context: float
    by_token: float
    is_shared: bool = False

    def step_seconds(self, rows: float, context: float, policies: Sequence[str]) -> float:
        """A step of so many sequences of so much context each."""
        return self.fixed + rows * (self.by_row + context * self.by_context)

    def prefill_seconds(self, num_tokens: float, policies: Sequence[str]) -> float:
        """So many tokens of prompts."""
        return num_tokens * self.by_token


def _lines(phases: Sequence[TimedPhase]) -> tuple[Line, Line]:
    """Lines through all steps: of paired and of solo phases, of which the engines are the same."""
    rows, tokens, context, seconds = (
        np.concatenate([np.array(getattr(one, name), np.float64) for one in phases])
        for name in ("rows", "tokens", "context", "seconds")
    )
    paired = np.repeat([float(one.paired) for one in phases], [len(one.rows) for one in phases])
    columns = [paired, paired * rows, 1 - paired, (1 - paired) * rows, context, tokens - rows]
    found = np.linalg.lstsq(np.stack(columns, axis=1), seconds)[0].tolist()
    return Line(*found[:2], *found[4:]), Line(*found[2:])


def _table(found: Mapping[str, dict[str, Any]]) -> Table:
    """The predictions beside the runs, for a reader."""
    shown = Table(
        "run", "wall, s", "min-max", "undisturbed, s", "predicted, s", "error, %", "of steps, %"
    )
    shown.caption = f"{machine()}; undisturbed: each step at its fastest; aim: {AIM:.0%}"
    for name, one in found.items():
        shown.add_row(
            name,
            *row(one["wall, s"]),
            f"{one['undisturbed, s']:.2f}",
            f"{one['predicted, s']:.2f}",
            *(f"{100 * one[error]:.1f}" for error in ("error", "error of steps")),
        )
    return shown
