"""Hosting: who makes the engines of a run, and the Ray cluster that they run in.

A run makes its own. `hosted_by` lends it others for a block: the tests keep one pair loaded between
runs, and put faults into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from engine.lockstep.engine_pair import PairConfig
from engine.lockstep.lease_runner import LeaseRunner
from engine.run.placement import ray_cluster
from engine.run.plan import Plan


@dataclass(frozen=True, slots=True)
class Hosting:
    """Where engines come from."""

    make_pair: Callable[[PairConfig], LeaseRunner] = LeaseRunner
    """A pair of engines from its configuration; it is not started yet."""
    open_cluster: Callable[[Plan], AbstractContextManager[None]] = ray_cluster
    """The Ray cluster of a plan, for a `with` block."""


_hosting: ContextVar[Hosting | None] = ContextVar("hosting", default=None)


def current_hosting() -> Hosting:
    """Where engines come from here: what `hosted_by` has lent, else a run's own."""
    return _hosting.get() or Hosting()


@contextmanager
def hosted_by(hosting: Hosting) -> Iterator[None]:
    """Runs inside the block, on this thread, get their engines from `hosting`."""
    token = _hosting.set(hosting)
    try:
        yield
    finally:
        _hosting.reset(token)
