"""Is the model of `benchmarks.simulate` right? Real runs of the embedded pair beside their
simulation.

One run calibrates the model: every step of it is timed in both engines, and a line is laid through
the steps by least squares (fixed part, part of a sequence, part of a prompt's token), one for
paired and one for solo phases; what is left of the wall time is shared out to the sequences. Other
runs, with other budgets and directions, are then predicted from it, with the lengths and
interventions that their responses really have. Each has a calibrating run before and after it,
since speed drifts where others use the machine. Steps are counted too: they do not depend on time.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from benchmarks.modelled import Response, Speed
from benchmarks.occupancy import RUNS, WatchedPair, plan
from benchmarks.result import Result, machine, row, spread
from benchmarks.simulate import Simulated, Workload, simulate
from engine.arrays import Floats
from engine.core import POLICIES
from engine.lockstep.fork import branch
from engine.lockstep.worker import Decided, Finished, Loaded, PolicyWorker, Requests
from engine.models.roofline import Device, EngineLoad, PairRoofline
from engine.run.placement import ray_cluster
from engine.run.plan import Plan
from engine.run.scheduler import Done, Scheduler
from engine.sampling.sampler import Phase

CALIBRATING = "budget 1"
PREDICTED = ("unlimited", "budget 8", "budget 1, one direction", "budgets 0-8")
AIM = 0.15
_SLOTS, _PROBLEMS, _SAMPLES = 64, 100, 2


class TimedPhase(NamedTuple):
    """A phase of one engine: its sequences, and of each step the sequences, the tokens computed and
    the seconds.
    """

    paired: bool
    num_sequences: int
    rows: list[int]
    tokens: list[int]
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
            return planned

        def timed() -> Any:
            began, num_steps = time.perf_counter(), len(self._phases[-1].rows)
            outputs = step()
            if len(self._phases[-1].rows) > num_steps:
                self._phases[-1].seconds.append(time.perf_counter() - began)
            return outputs

        scheduler.schedule, engine.step = counted, timed
        return loaded

    def run(self, phase: Phase, requests: Requests) -> Iterator[Finished | Decided]:
        """As it is; a phase begins."""
        self._phases.append(TimedPhase(phase.paired, len(requests.prompts), [], [], []))
        yield from super().run(phase, requests)

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


def validate(rounds: int, json: Path | None) -> None:
    """Make the runs, print how far the predictions are from them."""
    options = argparse.Namespace(problems=_PROBLEMS, samples=_SAMPLES, slots=_SLOTS)
    plans = {name: plan(options, *RUNS[name]) for name in (CALIBRATING, *PREDICTED)}
    found = defaultdict[str, list[tuple[Real, Simulated]]](list)
    with ray_cluster(plans[CALIBRATING]):
        pair = WatchedPair(plans[CALIBRATING], TimedWorker)
        try:
            carry_out(pair, plans[CALIBRATING])  # warm
            before = carry_out(pair, plans[CALIBRATING])
            for name in PREDICTED * rounds:
                real, after = (carry_out(pair, plans[one]) for one in (name, CALIBRATING))
                speed = calibrate([before, after])
                found[name].append((real, simulate(real.workload, speed, _SLOTS)))
                before = after
        finally:
            pair.end()
    measured = {}
    for name, both in found.items():
        errors = [predicted.seconds / real.seconds - 1 for real, predicted in both]
        measured[f"{name}: predicted / real - 1"] = spread(errors)
        measured[f"{name}: real, s"] = spread([real.seconds for real, _ in both])
        steps = [predicted.steps / real.steps - 1 for real, predicted in both]
        measured[f"{name}: steps, predicted / real - 1"] = spread(steps)
    Result("simulate --validate", {"rounds": rounds}, measured).publish([_table(found)], json)


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


def calibrate(runs: Sequence[Real]) -> Speed:
    """The speed of the pair, by some runs."""
    rest, num_sequences = sum(run.seconds for run in runs), 0
    phases: Mapping[bool, list[TimedPhase]] = {True: [], False: []}
    for lease in (lease for run in runs for lease in run.leases):
        for paired, kind in phases.items():
            sides = [[one for one in lease[policy] if one.paired == paired] for policy in POLICIES]
            kind += [one for side in sides for one in side]
            rest -= max(sum(sum(one.seconds) for one in side) for side in sides)
            num_sequences += max(sum(one.num_sequences for one in side) for side in sides)
    rooflines = _roofline(phases[True]), _roofline(phases[False])
    return Speed(*rooflines, 0.0, sequence_s=rest / num_sequences)


def _roofline(phases: Sequence[TimedPhase]) -> PairRoofline:
    """A line through the steps of these phases, as a roofline that memory never holds up."""
    rows, tokens, seconds = (
        np.concatenate([np.array(one[column], np.float64) for one in phases])
        for column in (2, 3, 4)
    )
    fixed, by_row, by_token = _line(rows, tokens - rows, seconds)
    device = Device("calibrated", np.inf, 1 / max(by_token, 1e-12), fixed, by_row - by_token)
    return PairRoofline(dict.fromkeys(POLICIES, EngineLoad(0.0, 0.0, 1.0)), device, False)


def _line(rows: Floats, num_prompt_tokens: Floats, seconds: Floats) -> tuple[float, float, float]:
    columns = np.stack([np.ones_like(rows), rows, num_prompt_tokens], axis=1)
    fixed, by_row, by_token = np.linalg.lstsq(columns, seconds)[0]
    return float(fixed), float(by_row), float(by_token)


def _table(found: Mapping[str, list[tuple[Real, Simulated]]]) -> Table:
    """The predictions beside the runs, for a reader."""
    shown = Table("run", "real, s", "predicted, s", "error, %", "min-max", "error of steps, %")
    shown.caption = f"{machine()}; aim: {AIM:.0%}"
    for name, both in found.items():
        real, predicted = (spread([one[side].seconds for one in both]) for side in (0, 1))
        errors = spread([100 * (guess.seconds / run.seconds - 1) for run, guess in both])
        steps = spread([100 * (guess.steps / run.steps - 1) for run, guess in both])
        shown.add_row(
            name,
            f"{real['median']:.1f}",
            f"{predicted['median']:.1f}",
            *row(errors),
            f"{steps['median']:.1f}",
        )
    return shown
