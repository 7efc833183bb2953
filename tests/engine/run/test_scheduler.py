"""What the scheduler does with pairs that fail: everything comes out once or is given up, and
little goes with it.

Pairs are scripted here, so that hundreds of patterns of failure take a second; test_failure has
real engines.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineError, IncompleteRunError, LostEngineError
from engine.lockstep.job import Job
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.run.scheduler import (
    MAX_FAILURES,
    MAX_GROUPS,
    MIN_GROUPS,
    Done,
    GivenUp,
    Note,
    Scheduler,
    lease_size,
)
from engine.sampling.rule import Rule

SLOTS = 4
ROWS = pa.table({"sequence": pa.array([], pa.int32())})


class Script:
    """A pair that finishes jobs one after the other, and fails at those that are poisoned; `starts`
    may fail first.

    whole: nothing comes out of a lease in which one is poisoned.
    """

    name = "pair 1"

    def __init__(
        self,
        poisoned: set[int],
        starts: Sequence[EngineError] = (),
        faults: int = 0,
        whole: bool = False,
    ) -> None:
        self.poisoned, self.starts, self.faults, self.whole = poisoned, list(starts), faults, whole
        self.num_starts = 0

    def start(self, tell: Callable[[str], object]) -> str:
        self.num_starts += 1
        if self.starts:
            raise self.starts.pop(0)
        return "ready"

    def kill(self) -> None:
        pass

    def run(self, jobs: Sequence[Job], rule: Rule) -> Iterator[Completed]:
        if self.whole and any(job.noise_key in self.poisoned for job in jobs):
            raise LostEngineError("poisoned")
        for index, job in enumerate(jobs):
            if job.noise_key in self.poisoned:
                raise LostEngineError("poisoned")
            yield Completed(np.array([index]), np.array([True]), ROWS, np.array([index]))
            if self.faults:
                self.faults -= 1
                raise LostEngineError("a passing fault")


def carry_out(num_jobs: int, *pairs: Script) -> tuple[Counter[int], list[GivenUp]]:
    """How often each job came out, and what was given up."""
    jobs = [Job([1], number, True, 0, 1) for number in range(num_jobs)]
    scheduler = Scheduler([cast(LeaseRunner, pair) for pair in pairs], jobs, Rule(), SLOTS)
    done: Counter[int] = Counter()
    given_up = []
    try:
        for event in scheduler.events():
            if isinstance(event, Done):
                done.update(event.jobs[int(index)] for index in event.completed.job)
            elif isinstance(event, GivenUp):
                given_up.append(event)
    finally:
        scheduler.close()
    return done, given_up


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 300),
    st.sets(st.integers(0, 299), max_size=4),
    st.integers(0, 1),
    st.integers(1, 2),
    st.booleans(),
)
def test_everything_comes_out_once_or_is_given_up_with_what_fails_every_time(
    num_jobs: int, poisoned: set[int], faults: int, num_pairs: int, whole: bool
) -> None:
    poisoned = {number for number in poisoned if number < num_jobs}
    others = [Script(poisoned, whole=whole) for _ in range(num_pairs - 1)]
    done, given_up = carry_out(num_jobs, Script(poisoned, faults=faults, whole=whole), *others)
    gone = [job for event in given_up for job in event.jobs]
    assert sorted([*done.elements(), *gone]) == list(range(num_jobs))
    assert poisoned <= set(gone)
    assert len(gone) <= (len(poisoned) + faults * bool(poisoned)) * -(
        -min(num_jobs, MAX_GROUPS * SLOTS) // 8
    )
    assert all(
        event.attempts == MAX_FAILURES and event.error in ("poisoned", "a passing fault")
        for event in given_up
    )


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 80), st.integers(0, MAX_FAILURES - 1))
def test_faults_that_pass_cost_no_trajectory(num_jobs: int, faults: int) -> None:
    done, given_up = carry_out(num_jobs, Script(set(), faults=faults))
    assert (sorted(done.elements()), given_up) == (list(range(num_jobs)), [])


def test_one_that_fails_every_time_costs_two_restarts() -> None:
    pair = Script({79})
    done, given_up = carry_out(80, pair)
    assert (len(done), [len(event.jobs) for event in given_up], pair.num_starts) == (
        79,
        [1],
        MAX_FAILURES,
    )


def test_where_everything_fails_the_run_ends_and_says_why() -> None:
    with pytest.raises(IncompleteRunError, match="failed 10 times with nothing done: poisoned"):
        carry_out(8000, Script(set(range(8000))))


def test_a_start_that_may_go_well_the_next_time_is_tried_again() -> None:
    pair = Script(set(), [LostEngineError("killed by the system")] * (MAX_FAILURES - 1))
    assert len(carry_out(3, pair)[0]) == 3
    assert pair.num_starts == MAX_FAILURES


@pytest.mark.parametrize(
    ("error", "starts"), [(EngineError("no such setting"), 1), (LostEngineError("x"), MAX_FAILURES)]
)
def test_a_start_that_never_goes_well_is_an_error(error: EngineError, starts: int) -> None:
    pair = Script(set(), [error] * 9)
    with pytest.raises(EngineError, match=str(error)):
        carry_out(3, pair)
    assert pair.num_starts == starts


def test_the_other_pairs_go_on_without_one_that_cannot_be_started_again() -> None:
    class StartsOnce(Script):
        def start(self, tell: Callable[[str], object]) -> str:
            if self.num_starts:
                raise EngineError("no room")
            return super().start(tell)

    assert len(carry_out(80, StartsOnce(set(), faults=1), Script(set()))[0]) == 80


def test_a_note_says_that_a_pair_failed_and_why() -> None:
    jobs = [Job([1], number, True, 0, 1) for number in range(3)]
    scheduler = Scheduler([cast(LeaseRunner, Script(set(), faults=1))], jobs, Rule(), SLOTS)
    notes = [event.text for event in scheduler.events() if isinstance(event, Note)]
    scheduler.close()
    assert notes == ["ready", "pair 1 failed: a passing fault", "ready"]


@given(st.integers(1, 100_000), st.integers(1, 9))
def test_every_pair_is_given_an_equal_lease_of_whole_slots_and_they_end_after_a_few_rounds(
    num_waiting: int, num_pairs: int
) -> None:
    rounds = 0
    while num_waiting:
        size = lease_size(num_waiting, num_pairs, SLOTS)
        assert 1 <= size <= MAX_GROUPS * SLOTS
        if num_waiting <= MIN_GROUPS * SLOTS * num_pairs:
            assert size * num_pairs >= num_waiting
        num_waiting -= min(num_waiting, size * num_pairs)
        rounds += 1
    assert rounds <= 100_000 / (MAX_GROUPS * SLOTS * num_pairs) + 5


def test_what_a_pair_gives_back_after_the_others_have_left_is_made() -> None:
    class Late(Script):
        def run(self, jobs: Sequence[Job], rule: Rule) -> Iterator[Completed]:
            time.sleep(0.5)
            yield from super().run(jobs, rule)

    done, given_up = carry_out(20, Script(set()), Late(set(), faults=1))
    assert (sorted(done.elements()), given_up) == (list(range(20)), [])
