"""Jobs, and the segments that they are made of: what a pair is to make, and the phase that asks its
engines for it.

Dimensions: S segments of a phase, N rows (positions) of a segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.arrays import Ints
from engine.lockstep.worker import Requests
from engine.sampling.criterion import random_positions
from engine.sampling.intervention import UNLIMITED
from engine.sampling.rule import Rule
from engine.sampling.sampler import Phase, Ragged


@dataclass(frozen=True, slots=True)
class Job:
    """One trajectory to be made: prompt token ids, noise key, direction, budget (None: unlimited),
    most tokens.

    span: criterion random tries `num_positions` random positions below it, until its budget is
          spent.
    given: the response is measured, not made.
    """

    prompt: list[int]
    noise_key: int
    forward: bool
    budget: int | None
    max_tokens: int
    position_limit: int | None = None
    num_positions: int = 0
    given: list[int] | None = None

    @property
    def allowed(self) -> int:
        """Interventions that the sampler may count down from."""
        return UNLIMITED if self.budget is None else self.budget

    def with_random_positions(self, interventions: int, position_limit: int | None) -> Job:
        """The job with so many interventions at random positions below `position_limit`, or below
        its most tokens.
        """
        budget = min(interventions, self.allowed)
        return replace(
            self,
            budget=budget,
            position_limit=position_limit or self.max_tokens,
            num_positions=budget,
        )

    @property
    def stem(self) -> tuple[int, ...]:
        """Jobs of one stem differ in their budget only. A given response, or one with its own
        positions, is alone.
        """
        alone = (id(self),) if self.given is not None else ()
        own = (
            (self.position_limit, self.num_positions, self.allowed)
            if self.position_limit is not None
            else ()
        )
        return (self.noise_key, self.forward, *own, *alone)


class Member(NamedTuple):
    """A job of a stem or tail, the stem's job, and the rows after which its budget is spent."""

    job: int
    stem: int
    spent: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A continuation to be made, of the trajectory `job`, from `prefix` on (None: from its start),
    for its members.
    """

    job: Job
    members: list[Member]
    prefix: pa.Table | None = None

    @property
    def tokens(self) -> list[int]:
        """Token ids of the prefix."""
        return [] if self.prefix is None else self.prefix.column("token").to_pylist()


def phase_of(
    segments: Sequence[Segment], rule: Rule | None, stop_token: int
) -> tuple[Phase, Requests]:
    """The phase, paired under `rule` or solo (None), and what its engines are asked. stop_token:
    for hand-backs.
    """
    jobs, prefixes = [segment.job for segment in segments], [segment.tokens for segment in segments]
    offset = np.array([len(prefix) for prefix in prefixes], np.int64)
    measured = [job.given for job in jobs if job.given is not None]
    assert len(measured) in (0, len(jobs)), "a phase measures or makes"
    keeps = bool(measured) or rule is None or rule.trace == "full"
    phase = Phase(
        paired=rule is not None,
        rule=rule or Rule(),
        key=np.array([job.noise_key for job in jobs], np.uint64),
        forward=np.array([job.forward for job in jobs], np.bool_),
        budget=np.array([job.allowed for job in jobs], np.int64),
        offset=offset,
        stop_token=None if keeps else stop_token,
        chosen=_chosen(jobs, rule) if rule else None,
        given=_ragged(measured) if measured else None,
    )
    prompts = [job.prompt + prefix for job, prefix in zip(jobs, prefixes, strict=True)]
    max_tokens = [job.max_tokens - int(o) for job, o in zip(jobs, offset, strict=True)]
    return phase, Requests(prompts, max_tokens, stops=not measured)


def _ragged(arrays: Sequence[Sequence[int]]) -> Ragged:
    size = np.array([len(array) for array in arrays])
    return Ragged(
        np.concatenate([np.array(array, np.int64) for array in arrays]), np.cumsum(size) - size
    )


def _chosen(jobs: Sequence[Job], rule: Rule) -> Ints | None:
    """The random positions of every job, if they have any, as `Phase.chosen` has them."""
    if all(job.position_limit is None for job in jobs):
        return None
    chosen = []
    for sequence, job in enumerate(jobs):
        stop = min(rule.stop, job.position_limit or 0)
        chosen.append(
            (sequence << 32) + random_positions(job.noise_key, job.num_positions, rule.start, stop)
        )
    return np.concatenate(chosen)
