"""Scheduler: which trajectories are on which pair, and what happens when a pair fails.

A thread a pair takes a lease from one queue, runs it, and puts what finishes into one channel that
the caller reads. A failed pair is started anew and only what had not finished runs again: once as
it was, then in pieces, one after the other, so that what fails every time takes little with it. A
piece that fails too is given up, and the run goes on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from engine.errors import EngineError, IncompleteRunError, LostEngineError
from engine.lockstep.fork import group_forks
from engine.lockstep.job import Job
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.lockstep.worker import Decided
from engine.sampling.rule import Rule
from engine.system.log import log_event

# Failures of a trajectory before it is given up, and starts of a pair in a row that may fail.
MAX_FAILURES = 3
_NUM_PIECES = 8
# Failures with nothing finished between them, after which the trouble is not with a few
# trajectories.
_MAX_IN_A_ROW = 2 + _NUM_PIECES
# Fork groups per slot in one lease. Slots run empty at the end of each lease, so more groups are
# better. The maximum bounds the rows of stems whose forks are not made yet: they must fit into
# memory, and are lost when a pair dies before their forks are made.
MIN_GROUPS, MAX_GROUPS = 2, 32
# The part of the waiting groups that is shared out to all pairs at once, in equal leases; the rest
# evens out when they end (factoring: Hummel, Schonberg, Flynn 1992). `benchmarks.simulate` tries
# others.
PART = 0.9
_CLOSING_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Note:
    """Something to tell the user: where a pair is ready, or why one failed."""

    text: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Done:
    """Trajectories that have finished."""

    jobs: Sequence[int]
    """Indices of the run's jobs that the lease holds."""
    completed: Completed
    """What has finished of them; its numbers are indices of `jobs`."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Trajectories that have failed too often."""

    jobs: Sequence[int]
    """Indices of the run's jobs."""
    attempts: int
    error: str


Event = Done | Decided | Note | GivenUp


class Scheduler:
    """Runs jobs on pairs.

    Read `events` to the end, and always call `close`.

    Args:
        pairs: Engines; each gets a thread.
        jobs: What is to be made.
        rule: When the pairs intervene, and with what.
        num_slots: Sequences that one pair has in flight.
    """

    def __init__(
        self, pairs: Sequence[LeaseRunner], jobs: Sequence[Job], rule: Rule, num_slots: int
    ) -> None:
        self._pairs, self._jobs, self._rule, self._num_slots = pairs, jobs, rule, num_slots
        self._waiting = deque(self._fork_groups(range(len(jobs))))
        self._suspects: deque[list[int]] = deque()  # pieces of leases that have failed twice
        self._failures, self._in_a_row = [0] * len(jobs), 0
        self._groups_a_lease, self._num_leases = 0, 0  # of the round that is being shared out
        self._lock = threading.Lock()
        self._events: queue.Queue[Event | BaseException | None] = queue.Queue(4 * len(pairs))
        self._threads = [
            threading.Thread(target=self._drive, args=(pair,), daemon=True) for pair in pairs
        ]
        self._closing = threading.Event()
        self._was_ready, self._num_working = False, len(pairs)

    def events(self) -> Iterator[Event | None]:
        """Everything that happens until all jobs are done or given up.

        Yields:
            Events, and None a few times a second, so that the caller can look up.

        Raises:
            IncompleteRunError: Everything fails.
            EngineError: No pair can be started at all.
        """
        for thread in self._threads:
            thread.start()
        num_running = len(self._threads)
        while num_running:
            try:
                event = self._events.get(timeout=0.2)
            except queue.Empty:
                yield None
                continue
            if event is None:
                num_running -= 1
            elif isinstance(event, BaseException):
                raise event
            else:
                yield event
        if num_left := sum(map(len, (*self._waiting, *self._suspects))):
            raise IncompleteRunError(f"{num_left} trajectories are left and no pair to make them")

    def close(self) -> None:
        """Kill every pair and wait for the threads, at any time and any number of times."""
        self._closing.set()
        for thread in self._threads:
            # A thread that waits for a Ray that has died never ends.
            deadline = time.monotonic() + _CLOSING_SECONDS
            # It may be in the middle of starting what was killed a moment ago.
            while thread.is_alive() and time.monotonic() < deadline:
                for pair in self._pairs:
                    pair.kill()
                self._drain()
                thread.join(0.1)
        for pair in self._pairs:
            pair.kill()

    def _drain(self) -> None:
        try:
            while True:
                self._events.get_nowait()
        except queue.Empty:
            return

    def _drive(self, pair: LeaseRunner) -> None:
        """One pair's life, in a thread of its own."""
        lease: list[int] = []
        failed_starts, ready = 0, False
        try:
            while not self._closing.is_set():
                try:
                    if not ready:
                        if not self._has_work():
                            break
                        self._start(pair)
                        ready, failed_starts = True, 0
                        if self._closing.is_set():
                            break
                    lease = self._take()
                    if not lease:
                        break
                    self._run(pair, lease)
                except EngineError as error:
                    if self._closing.is_set():
                        break
                    failed_starts += not ready
                    if not ready and failed_starts >= self._max_starts(error):
                        if self._retire() == 0 or not self._was_ready:
                            raise
                        self._tell(f"{pair.name} cannot be started, the others go on: {error}")
                        self._events.put(None)
                        return
                    self._tell(f"{pair.name} failed: {error}")
                    self._give_back(lease, error)
                    lease, ready = [], False
                    pair.kill()
            self._retire()
            self._events.put(None)
        except BaseException as error:  # the thread's boundary: the reader raises it
            self._events.put(error)
        finally:
            pair.kill()

    def _start(self, pair: LeaseRunner) -> None:
        where = pair.start(self._tell)
        self._events.put(Note(where, ready=True))
        self._was_ready = True

    def _tell(self, text: str) -> None:
        self._events.put(Note(text, ready=False))

    def _max_starts(self, error: EngineError) -> int:
        """Starts in a row that may fail.

        Where none ever went well the settings may be wrong, and another start would not help.
        """
        return MAX_FAILURES if self._was_ready or isinstance(error, LostEngineError) else 1

    def _has_work(self) -> bool:
        with self._lock:
            return bool(self._waiting or self._suspects)

    def _retire(self) -> int:
        """Count out the pair that asks, and return how many others still work."""
        with self._lock:
            self._num_working -= 1
            return self._num_working

    def _run(self, pair: LeaseRunner, lease: list[int]) -> None:
        """Run a lease; what finishes leaves the list."""
        indices = tuple(lease)
        log_event("a lease begins", logging.DEBUG, trajectories=len(lease), first_job=lease[0])
        for event in pair.run([self._jobs[index] for index in indices], self._rule):
            if isinstance(event, Decided):
                self._events.put(event)
            elif len(event.job):
                self._events.put(Done(indices, event))
                self._in_a_row = 0
                finished = {indices[int(index)] for index in event.job}
                lease[:] = [index for index in lease if index not in finished]
        if lease:
            raise EngineError(
                f"the engines went through their work, but {len(lease)} trajectories did not come"
                " out"
            )

    def _fork_groups(self, indices: Sequence[int]) -> list[list[int]]:
        """Jobs that share a stem together: what is forked together is made together."""
        groups = group_forks(self._jobs[index].fork_group for index in indices)
        return [[indices[place] for place in group] for group in groups]

    def _take(self) -> list[int]:
        """The next lease of a round of as many equal ones as there are pairs; [] at the end."""
        with self._lock:
            if not self._waiting:
                return self._suspects.popleft() if self._suspects else []
            if not self._num_leases:
                self._num_leases = len(self._pairs)
                self._groups_a_lease = lease_size(
                    len(self._waiting), len(self._pairs), self._num_slots
                )
            self._num_leases -= 1
            num_groups = min(self._groups_a_lease, len(self._waiting))
            return [index for _ in range(num_groups) for index in self._waiting.popleft()]

    def _give_back(self, lease: list[int], error: EngineError) -> None:
        """Queue again what has not finished, or give it up.

        Raises:
            IncompleteRunError: Nothing finishes at all.
        """
        if not lease:
            return
        with self._lock:
            self._num_leases = 0  # what waits now is shared out anew
            for index in lease:
                self._failures[index] += 1
            self._in_a_row += 1
            if self._in_a_row >= _MAX_IN_A_ROW:
                raise IncompleteRunError(
                    f"the engines failed {self._in_a_row} times with nothing done: {error}"
                )
            twice = [index for index in lease if self._failures[index] == MAX_FAILURES - 1]
            self._suspects.extend(_pieces(self._fork_groups(twice)))
            again = [index for index in lease if self._failures[index] < MAX_FAILURES - 1]
            self._waiting.extend(self._fork_groups(again))  # behind what may be sound
        if given_up := [index for index in lease if self._failures[index] >= MAX_FAILURES]:
            self._in_a_row = 0
            self._events.put(GivenUp(given_up, MAX_FAILURES, str(error)))


def lease_size(
    num_waiting: int,
    num_pairs: int,
    num_slots: int,
    part: float = PART,
    max_groups: int = MAX_GROUPS,
) -> int:
    """Fork groups in each lease of a round.

    If only a few per slot are left, they are not divided further: the round has all of them.

    Args:
        num_waiting: Fork groups that wait.
        num_pairs: Pairs that share them.
        num_slots: Sequences that one pair has in flight.
        part: The part of the waiting groups that the round shares out.
        max_groups: Groups per slot, at most.
    """
    smallest, share = MIN_GROUPS * num_slots, ceil(num_waiting / num_pairs)
    if num_pairs > 1 and share > smallest:
        share = max(ceil(part * share), smallest)
    return min(share, max_groups * num_slots)


def _pieces(groups: Sequence[list[int]]) -> list[list[int]]:
    """A lease of these fork groups as smaller ones."""
    size = -(-len(groups) // _NUM_PIECES) or 1
    return [
        [index for group in groups[at : at + size] for index in group]
        for at in range(0, len(groups), size)
    ]
