"""Jobs, their segments, and the phase that asks a pair's engines for segments.

A job is one trajectory that a pair generates or scores. Stems and tails are segments of it, and a
phase carries many segments at once.

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
from engine.sampling.criterion import draw_positions
from engine.sampling.intervention import MAX_INTERVENTIONS
from engine.sampling.rule import Rule
from engine.sampling.sampler import Phase


@dataclass(frozen=True, slots=True)
class Job:
    """One trajectory to generate, or one external response to score."""

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
    """Token ids of the response, where it is scored and not generated."""

    @property
    def interventions_left(self) -> int:
        """The budget as the number that the sampler counts down from."""
        return MAX_INTERVENTIONS if self.budget is None else self.budget

    def with_random_positions(self, interventions: int, position_limit: int | None) -> Job:
        """The job with its interventions at random positions.

        Args:
            interventions: How many there are; the job's budget if that is less.
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

        None for a job that shares tokens with no other, such as an external response. Jobs with
        random positions share tokens only where these positions are the same.
        """
        if self.external is not None:
            return None
        if self.position_limit is None:
            return (self.noise_key, self.forward)
        drawn = (self.position_limit, self.num_positions, self.interventions_left)
        return (self.noise_key, self.forward, *drawn)


class Member(NamedTuple):
    """A job whose tokens a stem or a tail generates."""

    job_index: int
    """Index of the job in its lease."""
    stem_index: int
    """Index of the job whose first tokens this one shares; its own if there is none."""
    spent: int
    """Rows after which the budget of the job is spent."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A continuation of the trajectory of `job` after `prefix`."""

    job: Job
    members: list[Member]
    """The jobs that share it."""
    prefix: pa.Table | None = None
    """Merged rows before the segment; None where it begins the response."""

    @property
    def tokens(self) -> list[int]:
        """Token ids of the prefix."""
        return [] if self.prefix is None else self.prefix.column("token").to_pylist()


def phase_of(
    segments: Sequence[Segment], rule: Rule | None, stop_token: int
) -> tuple[Phase, Requests]:
    """The phase that carries some segments, and the requests of its engines.

    Args:
        segments: The segments.
        rule: The rule of a paired phase; None for a solo phase.
        stop_token: Hands a sequence back whose budget is spent.
    """
    jobs, prefixes = [segment.job for segment in segments], [segment.tokens for segment in segments]
    offset = np.array([len(prefix) for prefix in prefixes], np.int64)
    phase = Phase(
        paired=rule is not None,
        rule=rule or Rule(),
        key=np.array([job.noise_key for job in jobs], np.uint64),
        forward=np.array([job.forward for job in jobs], np.bool_),
        budget=np.array([job.interventions_left for job in jobs], np.int64),
        offset=offset,
        stop_token=stop_token if rule else None,
        random_positions=_random_positions(jobs, rule) if rule else None,
    )
    prompts = [job.prompt + prefix for job, prefix in zip(jobs, prefixes, strict=True)]
    max_tokens = [job.max_tokens - len(prefix) for job, prefix in zip(jobs, prefixes, strict=True)]
    return phase, Requests(prompts, max_tokens)


def _random_positions(jobs: Sequence[Job], rule: Rule) -> Ints | None:
    """The random positions of all jobs, as a `Phase` has them; None if no job has any."""
    if all(job.position_limit is None for job in jobs):
        return None
    parts = []
    for sequence, job in enumerate(jobs):
        stop = min(rule.stop, job.position_limit or 0)
        positions = draw_positions(job.noise_key, job.num_positions, rule.start, stop)
        parts.append((sequence << 32) + positions)
    return np.concatenate(parts)
