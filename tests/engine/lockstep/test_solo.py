"""Tails are shared out: each is made once, by an engine with the weights of its primary.

The engines here are modelled, so that a second is a second; real ones are in test_switch.py.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from engine.core import POLICIES
from engine.lockstep.engine_pair import EnginePair
from engine.lockstep.forecast import Forecast
from engine.lockstep.job import Job, Member, Segment, phase_of
from engine.lockstep.solo import SoloPhase
from engine.lockstep.worker import Decided, Finished, Requests, Switched
from engine.sampling.sampler import Phase

SLOTS = 4


class ModelledEngines:
    """As `EnginePair`: a step of an engine takes a second, and a switch `switch_seconds`."""

    def __init__(self, lengths: dict[str, list[int]], switch_seconds: float) -> None:
        self.may_switch, self.is_spoilt = True, False
        self.holds: dict[str, str] = {policy: policy for policy in POLICIES}
        self.num_switches, self.now = 0, 0.0
        self._lengths, self._switch_seconds = lengths, switch_seconds
        self._under_way: dict[str, list[list[int]]] = {policy: [] for policy in POLICIES}
        self._messages: list[tuple[float, int, str, Any]] = []  # a heap, by time
        self._number = itertools.count()
        self.made: list[tuple[str, int]] = []

    def switch_back(self) -> None:
        assert self.holds == {policy: policy for policy in POLICIES}

    def begin_switch(self, policy: str, to: str) -> None:
        assert not self._under_way[policy]
        self.num_switches += 1
        del self.holds[policy]
        end = self.now + self._switch_seconds
        self._say(end, policy, (to, Switched((), self._switch_seconds)))
        self._say(end, policy, None)

    def begin(
        self, policy: str, phase: Phase | None, requests: Requests, num_left: int = 0
    ) -> None:
        primary = self.holds[policy]
        if phase:
            assert not self._under_way[policy]
            assert phase.forward.all() == (primary == "base")
        first = requests.first
        waiting = [
            [index, self._lengths[primary][index]]
            for index in range(first, first + len(requests.prompts))
        ]
        rows = self._under_way[policy]
        rows += waiting
        time, num_tokens, ended = self.now, 0, []
        while len(rows) > num_left:
            time += 1
            for row in rows[:SLOTS]:
                row[1] -= 1
                num_tokens += 1
            ended += [row[0] for row in rows if not row[1]]
            rows[:] = [row for row in rows if row[1]]
        self.made += [(primary, index) for index in ended]
        emitted = np.array([self._lengths[primary][index] for index in ended])
        if ended:
            self._say(
                time, policy, Finished(np.array(ended), emitted, emitted > 0, pa.record_batch({}))
            )
        self._say(time, policy, Decided(num_tokens, time - self.now))
        self._say(time, policy, None)

    def next_message(self) -> tuple[str, Any]:
        self.now, _, policy, message = heapq.heappop(self._messages)
        if isinstance(message, tuple):
            self.holds[policy], message = message
            if self.is_spoilt and self.holds[policy] != policy:
                self.holds[policy], self.may_switch = "", False
        return policy, message

    def _say(self, time: float, policy: str, message: Any) -> None:
        heapq.heappush(self._messages, (time, next(self._number), policy, message))


def carry_out(
    base: Sequence[int],
    rl: Sequence[int],
    switch_seconds: float,
    may_switch: bool = True,
    is_spoilt: bool = False,
) -> ModelledEngines:
    """Tails of these lengths, to their end. is_spoilt: weights that are loaded are never right."""
    lengths = {"base": list(base), "rl": list(rl)}
    engines = ModelledEngines(lengths, switch_seconds)
    engines.may_switch, engines.is_spoilt = may_switch, is_spoilt
    work = {}
    for policy, mine in lengths.items():
        if mine:
            jobs = [Job([1], n, policy == "base", 0, 100) for n in range(len(mine))]
            segments = [Segment(job, [Member(n, n, 0)]) for n, job in enumerate(jobs)]
            work[policy] = phase_of(segments, None, 2)
    forecast = Forecast(switch_seconds)
    solo = SoloPhase(cast(EnginePair, engines), work, SLOTS, forecast)
    finished = [
        (primary, int(index))
        for primary, message in (m for m in solo.messages() if not isinstance(m, Decided))
        for index in message.sequence
    ]
    everything = [(policy, n) for policy, mine in lengths.items() for n in range(len(mine))]
    assert sorted(finished) == sorted(engines.made) == sorted(everything)
    return engines


tails = st.lists(st.integers(1, 100), max_size=60)


@given(tails, tails, st.floats(0.1, 300))
def test_each_tail_is_made_once_under_its_primary(
    base: list[int], rl: list[int], switch_seconds: float
) -> None:
    carry_out(base, rl, switch_seconds)


@given(st.lists(st.integers(20, 100), min_size=40, max_size=80))
def test_an_idle_engine_halves_the_time(rl: list[int]) -> None:
    alone = carry_out([], rl, 1.0, may_switch=False)
    together = carry_out([], rl, 1.0)
    assert alone.num_switches == 0
    assert together.num_switches >= 1
    assert together.now < 0.75 * alone.now


@given(tails, tails)
def test_a_switch_that_does_not_pay_is_not_made(base: list[int], rl: list[int]) -> None:
    helped = carry_out(base, rl, switch_seconds=10_000.0)
    assert helped.num_switches == 0
    assert helped.now == carry_out(base, rl, 10_000.0, may_switch=False).now


def test_an_engine_helps_when_its_own_tails_are_done() -> None:
    alone = carry_out([10] * 8, [50] * 60, 1.0, may_switch=False)
    together = carry_out([10] * 8, [50] * 60, 1.0)
    assert together.num_switches >= 1
    assert together.now < 0.65 * alone.now


@given(tails, tails)
def test_an_engine_with_wrong_weights_only_gets_its_own_back(
    base: list[int], rl: list[int]
) -> None:
    engines = carry_out(base, rl, 1.0, is_spoilt=True)
    assert engines.num_switches in (0, 1, 2)
    assert engines.may_switch == (engines.num_switches == 0)
