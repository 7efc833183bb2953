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
from engine.core import Budget
from engine.lockstep.worker import Requests
from engine.sampling.criterion import random_positions
from engine.sampling.intervention import MAX_INTERVENTIONS
from engine.sampling.rule import Rule
from engine.sampling.sampler import Phase, Ragged


@dataclass(frozen=True, slots=True)
class Job:
    """One trajectory to be made, or one external response to be measured."""

    prompt: list[int]
    """Token ids."""
    noise_key: int
    forward: bool
    """Whether base is the primary, else rl."""
    budget: Budget
    max_tokens: int
    position_limit: int | None = None
    """Criterion random with a matched run: the random positions lie below this one."""
    num_positions: int = 0
    """How many random positions are drawn; interventions end with the budget."""
    external: list[int] | None = None
    """Token ids of the response, where it is measured and not made."""

    @property
    def interventions_left(self) -> int:
        """Interventions that the sampler counts down from."""
        return MAX_INTERVENTIONS if self.budget is None else self.budget

    def with_random_positions(self, interventions: int, position_limit: int | None) -> Job:
        """The job with so many interventions at random positions.

        Args:
            interventions: How many, or the job's budget if that is less.
            position_limit: The positions lie below it; None: below the job's max_tokens.
        """
        budget = min(interventions, self.interventions_left)
        return replace(
            self,
            budget=budget,
            position_limit=position_limit or self.max_tokens,
            num_positions=budget,
        )

    @property
    def fork_group(self) -> tuple[int, ...] | None:
        """Equal for jobs that differ in their budget only: one of them is the stem of the others.

        None for a job that shares tokens with no other, as an external response. Jobs with random
        positions share tokens only where these positions are the same.
        """
        if self.external is not None:
            return None
        if self.position_limit is None:
            return (self.noise_key, self.forward)
        drawn = (self.position_limit, self.num_positions, self.interventions_left)
        return (self.noise_key, self.forward, *drawn)


class Member(NamedTuple):
    """A job that a stem or a tail makes. Both numbers are indices of the lease."""

    job_index: int
    stem_index: int
    """The job whose trajectory this one shares its first tokens with; itself if none."""
    spent: int
    """Rows after which the budget of the job is spent."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A continuation to be made: of the trajectory of `job`, after `prefix`, for its members."""

    job: Job
    members: list[Member]
    prefix: pa.Table | None = None
    """Merged rows before the segment; None where it begins the response."""

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
    measured = [job.external for job in jobs if job.external is not None]
    assert len(measured) in (0, len(jobs)), "a phase measures or makes"
    keeps = bool(measured) or rule is None or rule.trace == "full"
    phase = Phase(
        paired=rule is not None,
        rule=rule or Rule(),
        key=np.array([job.noise_key for job in jobs], np.uint64),
        forward=np.array([job.forward for job in jobs], np.bool_),
        budget=np.array([job.interventions_left for job in jobs], np.int64),
        offset=offset,
        stop_token=None if keeps else stop_token,
        chosen=_chosen(jobs, rule) if rule else None,
        external=_ragged(measured) if measured else None,
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
