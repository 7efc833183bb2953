"""Engines that are modelled: what two workers would send, in simulated seconds, without a model and
without waiting.

`ModelledEngines` stands where a `LeaseRunner` has its `EnginePair`, so that leases, stems, tails
and forks are made by the project's own code. A step takes what a roofline says, and a slot that
comes free takes the next sequence. Prompts are computed anew in every phase; preemption is left
out. A row may stand for several tokens (`grain`), since only time is asked for and not what the
tokens are.

Dimensions: S sequences of a phase, N rows.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa

from engine.arrays import Bools, Floats, Ints
from engine.core import POLICIES
from engine.lockstep.engine_pair import PairConfig
from engine.lockstep.job import Job
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.lockstep.worker import (
    SEQUENCES_PER_MESSAGE,
    Decided,
    Finished,
    Requests,
    Switched,
)
from engine.sampling.rule import Rule
from engine.sampling.sampler import Phase
from engine.store.schema import TOKENS

_Message = Finished | Decided | Switched | None
_TWIN: dict[str, str] = dict(zip(POLICIES, reversed(POLICIES), strict=True))


@dataclass(frozen=True)
class Response:
    """A response with its interventions, in rows.

    intervened: the rows of interventions, ascending, and whether each was effective. tails: lengths
    of the trajectories that fork from it, by the row at which they do; one that is left out is as
    long as the response.
    """

    length: int
    intervened: Ints
    effective: Bools
    tails: Mapping[int, int] = field(default_factory=dict)

    def spent(self, budget: int) -> int:
        """Rows up to the one that spends the budget."""
        if budget > len(self.intervened):
            return self.length
        return int(self.intervened[budget - 1]) + 1


Responses = Mapping[tuple[int, bool], Response]  # by noise key, and whether base is the primary


class Steps(Protocol):
    """What steps take, as `PairRoofline` says it."""

    @property
    def is_shared(self) -> bool: ...

    def step_seconds(self, rows: float, context: float, policies: Sequence[str]) -> float: ...

    def prefill_seconds(self, num_tokens: float, policies: Sequence[str]) -> float: ...


@dataclass(frozen=True)
class Speed:
    """How fast a pair is.

    paired, solo: its steps. sequence_s: what a sequence of a phase takes beside its steps.
    switch_s: what an engine takes to load its twin's weights. grain: tokens of a row.
    """

    paired: Steps
    solo: Steps
    prompt_tokens: float
    sequence_s: float = 0.0
    switch_s: float = 0.0
    grain: int = 1


class Clock:
    """Simulated seconds of several pairs. Each goes on when no other is behind, so that they take
    their leases in the order of simulated time.
    """

    def __init__(self, num_pairs: int) -> None:
        self.now = [0.0] * num_pairs
        self._working = set(range(num_pairs))
        self._moved = threading.Condition()

    def wait(self, pair: int, now: float) -> None:
        """Say that it is `now` for a pair, and wait for those for which it is earlier."""
        with self._moved:
            self.now[pair] = now
            self._moved.notify_all()
            self._moved.wait_for(lambda: self._is_first(pair))

    def leave(self, pair: int, now: float) -> None:
        """The pair has nothing more to do from `now` on."""
        with self._moved:
            self.now[pair] = now
            self._working.discard(pair)
            self._moved.notify_all()

    def _is_first(self, pair: int) -> bool:
        mine = self.now[pair], pair
        return all(mine <= (self.now[other], other) for other in self._working)


class _Engine:
    """Continuous batching on one engine, from one end of a sequence to the next.

    used, empty: slot-seconds of its slots while it had work. switching: seconds. num_steps: all;
    used_steps: those of its slots in which a sequence was computed.
    """

    def __init__(self, slots: int) -> None:
        self.now = self.used = self.empty = self.switching = 0.0
        self.num_steps = self.used_steps = 0.0
        self._slots = slots
        # Of every sequence under way, in the order in which they came.
        self._index: Ints = np.empty(0, np.int64)
        self._left, self._reach = np.empty(0), np.empty(0)
        self._is_new: Bools = np.empty(0, np.bool_)

    @property
    def num_unfinished(self) -> int:
        return len(self._index)

    def add(self, index: Ints, num_tokens: Floats, context: Floats) -> None:
        """Take sequences [S]: their numbers, the tokens to decide and those before them."""
        self._index = np.concatenate([self._index, index])
        self._left = np.concatenate([self._left, num_tokens])
        self._reach = np.concatenate([self._reach, context])
        self._is_new = np.concatenate([self._is_new, np.ones(len(index), np.bool_)])

    def step(self, steps: Steps, policies: Sequence[str]) -> Ints:
        """All steps until the next sequences end, whose numbers are returned."""
        rows = min(self._slots, self.num_unfinished)
        running = slice(0, rows)
        num_steps = max(1.0, float(self._left[running].min()))
        reach = float(self._reach[running].mean()) + num_steps / 2
        seconds = num_steps * steps.step_seconds(rows, reach, policies)
        num_prompt_tokens = float(self._reach[running][self._is_new[running]].sum())
        seconds += steps.prefill_seconds(num_prompt_tokens, policies)
        self.spend(seconds, rows)
        self.num_steps += num_steps
        self.used_steps += rows * num_steps
        self._is_new[running] = False
        self._left[running] -= num_steps
        self._reach[running] += num_steps
        is_over = np.arange(self.num_unfinished) < rows
        is_over &= self._left <= 0
        ended = self._index[is_over]
        self._index, self._is_new = self._index[~is_over], self._is_new[~is_over]
        self._left, self._reach = self._left[~is_over], self._reach[~is_over]
        return ended

    def spend(self, seconds: float, rows: int) -> None:
        """Let seconds pass in which so many of its slots compute."""
        self.now += seconds
        self.used += rows * seconds
        self.empty += (self._slots - rows) * seconds


class ModelledEngines:
    """As `EnginePair`: the phases that it is asked for, in simulated time.

    helps: whether an engine without solo work may load its twin's weights.
    """

    def __init__(
        self,
        speed: Speed,
        responses: Responses,
        slots: int,
        clock: Clock,
        pair: int,
        helps: bool = False,
    ) -> None:
        self._speed, self._responses, self._slots = speed, responses, slots
        self._clock, self._pair, self.may_switch = clock, pair, helps
        self.engines: dict[str, _Engine] = {policy: _Engine(slots) for policy in POLICIES}
        self.num_leases, self._has_both_directions = 0, False
        self.holds: dict[str, str] = {policy: policy for policy in POLICIES}
        self._expected: dict[str, _Expected] = {}
        self._ended: dict[str, list[int]] = {policy: [] for policy in POLICIES}
        self._messages: dict[str, deque[tuple[float, _Message]]] = {
            policy: deque() for policy in POLICIES
        }
        self._busy: set[str] = set()
        self._now = 0.0  # of the driver, when it was told the last message

    def begin_lease(self, jobs: Sequence[Job]) -> None:
        """Count a lease, and note whether both engines have solo work in it."""
        self.num_leases += 1
        self._has_both_directions = len({job.forward for job in jobs}) > 1

    def place(self) -> str:
        return "in a model"

    def load(self) -> int:
        return 0

    def kill(self) -> None:
        self._clock.leave(self._pair, self._now)

    def stream(
        self, work: Mapping[str, tuple[Phase, Requests]]
    ) -> Iterator[tuple[str, Finished | Decided]]:
        """The messages of a paired phase; then its time has passed."""
        self.switch_back()
        for policy, phase in work.items():
            self.begin(policy, *phase)
        while self._busy:
            policy, message = self.next_message()
            if message is not None:
                assert not isinstance(message, Switched)
                yield policy, message

    def switch_back(self) -> None:
        """Give every engine its own weights again."""
        while self._busy:
            self.next_message()
        for policy, held in list(self.holds.items()):
            if held != policy:
                self.begin_switch(policy, policy)
        while self._busy:
            self.next_message()

    def begin(
        self, engine: str, phase: Phase | None, requests: Requests, num_left: int = 0
    ) -> None:
        """Let an engine carry sequences of a phase, under the weights that it holds.

        phase: None goes on with the last one. num_left: as many may be left under way, for a later
        call.
        """
        places = np.arange(requests.first, requests.first + len(requests.prompts))
        primary = self.holds[engine]
        if phase is not None:
            self._expected[engine] = _Expected(phase, self._responses)
        expected, modelled, speed = self._expected[engine], self.engines[engine], self._speed
        ended, messages = self._ended[engine], self._messages[engine]
        is_paired = expected.phase.paired
        steps = speed.paired if is_paired else speed.solo
        policies: tuple[str, ...] = (primary,)
        if is_paired or (steps.is_shared and self._has_both_directions):
            policies = POLICIES
        modelled.now = max(modelled.now, self._now)
        num_tokens = speed.grain * expected.rows[places].astype(np.float64)
        context = speed.grain * expected.phase.offset[places].astype(np.float64)
        modelled.add(places, num_tokens, speed.prompt_tokens + context)
        modelled.spend(speed.sequence_s * len(places), min(self._slots, len(places)))
        self._busy.add(engine)
        began, steps_before = modelled.now, modelled.used_steps
        while modelled.num_unfinished > num_left:
            ended += modelled.step(steps, policies).tolist()
            is_due = not modelled.num_unfinished or len(ended) >= SEQUENCES_PER_MESSAGE
            if ended and is_due:
                messages.append((modelled.now, expected.finished(primary, np.array(ended))))
                ended.clear()
        num_decided = int((modelled.used_steps - steps_before) / speed.grain)
        messages.append((modelled.now, Decided(num_decided, modelled.now - began)))
        messages.append((modelled.now, None))

    def begin_switch(self, engine: str, to: str) -> None:
        """Let an engine load the weights of policy `to`."""
        modelled, seconds = self.engines[engine], self._speed.switch_s
        modelled.now = max(modelled.now, self._now) + seconds
        modelled.switching += seconds
        self.holds[engine] = to
        self._busy.add(engine)
        self._messages[engine] += [(modelled.now, Switched((), seconds)), (modelled.now, None)]

    def next_message(self) -> tuple[str, _Message]:
        """The next message of any engine, with its policy; None where it has ended its call."""
        engine = min(self._busy, key=lambda policy: self._messages[policy][0][0])
        self._now, message = self._messages[engine].popleft()
        if message is None:
            self._busy.discard(engine)
            if not self._busy:
                self._clock.wait(self._pair, self._now)
        return engine, message


class _Expected:
    """A phase, and how its sequences end."""

    def __init__(self, phase: Phase, responses: Responses) -> None:
        self.phase = phase
        keys = zip(phase.key.tolist(), phase.forward.tolist(), strict=True)
        self._responses = [responses[key] for key in keys]
        offset, budget = phase.offset.tolist(), phase.budget.tolist()
        length = np.array(
            [
                one.tails.get(at, one.length)
                for one, at in zip(self._responses, offset, strict=True)
            ],
            np.int64,
        )
        stop = length
        if phase.stop_token is not None:  # what has spent its budget is handed back
            spent = [one.spent(left) for one, left in zip(self._responses, budget, strict=True)]
            stop = np.minimum(length, np.array(spent))
        self.rows: Ints = stop - phase.offset
        self._is_handed_back: Bools = stop < length

    def finished(self, policy: str, sequence: Ints) -> Finished:
        """The message of these sequences."""
        order = np.sort(sequence)
        emitted = self.rows[order] + self._is_handed_back[order]
        stopped = np.ones(len(order), np.bool_)
        return Finished(order, emitted, stopped, self._trace(policy, order))

    def _trace(self, policy: str, sequence: Ints) -> pa.RecordBatch:
        """Their rows [N], of which only the interventions are known."""
        rows = self.rows[sequence]
        num_rows = int(rows.sum())
        start = np.cumsum(rows) - rows
        position = np.arange(num_rows) - np.repeat(start - self.phase.offset[sequence], rows)
        intervened, effective = np.zeros((2, num_rows), np.bool_)
        if self.phase.paired:
            for at, size, index in zip(start, rows, sequence, strict=True):
                response = self._responses[index]
                taken = response.intervened < size
                intervened[at + response.intervened[taken]] = True
                effective[at + response.intervened[taken]] = response.effective[taken]
        known = {
            "sequence": np.repeat(sequence, rows).astype(np.int32),
            "position": position.astype(np.int32),
            "token": np.zeros(num_rows, np.int32),
            "intervened": intervened,
            "effective": effective,
        }
        return pa.RecordBatch.from_pydict(
            {name: pa.array(values) for name, values in known.items()}
            | {name: pa.nulls(num_rows, type_) for name, type_ in _UNKNOWN[policy].items()}
        )


def _unknown(policy: str) -> dict[str, pa.DataType]:
    """Columns of a trace that say nothing here, with their types."""
    columns = {"primary_token": "primary_token", "js": "js", "top_k": f"topk_{policy}"}
    columns |= {name: f"{name}_{policy}" for name in ("entropy", "logp", "rank", "nucleus", "top1")}
    columns |= {
        f"{name}_of_other_top1": f"{name}_{policy}_of_top1_{_TWIN[policy]}"
        for name in ("logp", "rank")
    }
    return {name: TOKENS.field(column).type for name, column in columns.items()}


_UNKNOWN: dict[str, dict[str, pa.DataType]] = {policy: _unknown(policy) for policy in POLICIES}


def modelled_runner(config: PairConfig, engines: ModelledEngines) -> LeaseRunner:
    """The project's lease runner, on modelled engines."""
    runner = _CountingRunner(config)
    runner.engines = cast(Any, engines)
    return runner


class _CountingRunner(LeaseRunner):
    """A lease runner that tells its modelled engines of each lease."""

    def run(self, jobs: Sequence[Job], rule: Rule) -> Iterator[Completed | Decided]:
        """As it is."""
        cast(ModelledEngines, self.engines).begin_lease(jobs)
        yield from super().run(jobs, rule)
