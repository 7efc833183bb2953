"""LeaseRunner: a pair of engines that takes leases of jobs and gives back finished trajectories.

A lease is run in stages, which never share a phase of an engine. Jobs that differ in their budget
only share one stem: the paired phase carries it with the largest budget, the others fork from it
(`fork`). Then primaries continue the tails alone, both directions at once (`solo`).
External responses, and with trace "full" the tails, are measured under both policies (`measuring`).
Anything that goes wrong is an EngineError; the scheduler then kills the pair and starts it anew.

Dimensions: F finished trajectories of a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.arrays import Bools, Ints
from engine.core import POLICIES
from engine.errors import LockstepError
from engine.lockstep.engine_pair import EnginePair, PairConfig
from engine.lockstep.forecast import Forecast
from engine.lockstep.fork import branch, group_forks
from engine.lockstep.job import Job, Member, Segment, phase_of
from engine.lockstep.measuring import Response, measure_responses
from engine.lockstep.merge import lengths, merge_sides, rows_of, without_twin
from engine.lockstep.solo import SoloPhase
from engine.lockstep.worker import Decided, Finished, PolicyWorker, Requests
from engine.sampling.rule import Rule
from engine.sampling.sampler import Phase

_MEASURED_AT_ONCE = 2**20
"""Tokens of responses that both engines are asked to measure at once, about."""


@dataclass(frozen=True, slots=True)
class Completed:
    """Finished jobs of a lease."""

    job: Ints
    """Indices of the lease's jobs [F], ascending."""
    stopped: Bools
    """Whether each ended by a stop token [F], else by its max_tokens."""
    tokens: pa.Table
    """The merged rows of all; the column `sequence` holds indices of the lease's jobs."""
    stem_index: Ints
    """The job whose trajectory each was forked from [F], itself if none."""


class _Whole(NamedTuple):
    """A finished trajectory, with the segment that made it and its rows from first to last."""

    member: Member
    segment: Segment
    stopped: bool
    rows: pa.Table


class _Unmeasured(NamedTuple):
    """A segment whose tokens are known, at which both policies are to be measured."""

    segment: Segment
    stopped: bool
    tokens: list[int]
    """Token ids of the whole response."""

    @property
    def response(self) -> Response:
        """What is measured."""
        prefix = self.segment.prefix
        start = 0 if prefix is None else prefix.num_rows
        return Response(self.segment.job.prompt, self.tokens, start)


class _Batch(NamedTuple):
    """Finished sequences of a phase."""

    sequence: Ints
    """Their indices in the phase [F], ascending."""
    stopped: Bools
    """Whether each ended by a stop token [F], else by its length."""
    handed_back: Bools
    """Whether its budget was spent, so that the primary goes on alone [F]."""
    tokens: pa.Table


class LeaseRunner:
    """A pair of engines: `start` it, `run` one lease after the other, and always `kill` it.

    Args:
        config: How to start the two engines.
        worker_class: What hosts an engine. Benchmarks put a stopwatch into it, tests a fault.
    """

    def __init__(self, config: PairConfig, worker_class: type[PolicyWorker] = PolicyWorker) -> None:
        self.engines, self.name = EnginePair(config, worker_class), f"pair {config.number}"
        self.config = config
        self._stop_token = config.workers["base"].stop_token_ids[0]
        self._num_slots = config.workers["base"].engine_args["max_num_seqs"]
        self._forecast = Forecast.before_any(config.checkpoint_bytes)

    def start(self, tell: Callable[[str], object] = lambda line: None) -> str:
        """Place, load and connect the two engines.

        Args:
            tell: Is given a line that says where they run, before anything is loaded.

        Returns:
            A line for the user.

        Raises:
            EngineError: An engine cannot be started.
        """
        tell(f"{self.name}: {self.engines.place()}")
        return f"{self.name}: ready, {self.engines.load()} KV blocks an engine"

    def kill(self) -> None:
        """End both engines now, whatever they are doing."""
        self.engines.kill()

    def run(self, jobs: Sequence[Job], rule: Rule) -> Iterator[Completed | Decided]:
        """Run a lease to its end.

        Raises:
            EngineError: Something is wrong; LockstepError where the two engines disagree.
        """
        lease = _Lease(jobs, rule)
        while lease.paired:
            yield from self._run_paired(lease, lease.take_paired())
        if lease.tails:
            yield from self._run_tails(lease)
        if lease.unmeasured:
            yield from self._measure(lease)

    def _run_paired(self, lease: _Lease, segments: list[Segment]) -> Iterator[Completed | Decided]:
        """Carry stems with their largest budgets; what forks or is redrawn stays in the lease."""
        for batch in self._paired_phase(segments, lease.rule):
            if isinstance(batch, Decided):
                yield batch
                continue
            whole: list[_Whole] = []
            for sequence, stopped, handed_back in zip(*batch[:3], strict=True):
                rows = rows_of(batch.tokens, sequence)
                whole += lease.settle(segments[sequence], stopped, handed_back, rows)
            if whole:
                yield _completed(whole, lease.rule)

    def _run_tails(self, lease: _Lease) -> Iterator[Completed | Decided]:
        """Continue under the primary; with trace "full" the lease keeps them to be measured."""
        tails = lease.tails
        for batch in self._solo_phase(tails):
            if isinstance(batch, Decided):
                yield batch
                continue
            whole: list[_Whole] = []
            for sequence, stopped, _ in zip(*batch[:3], strict=True):
                tail, rows = tails[sequence], rows_of(batch.tokens, sequence)
                if tail.prefix is not None:
                    rows = pa.concat_tables([tail.prefix, rows])
                if lease.rule.trace == "full":
                    lease.unmeasured.append(_Unmeasured(tail, stopped, rows["token"].to_pylist()))
                whole += [_Whole(member, tail, stopped, rows) for member in tail.members]
            if lease.rule.trace != "full":
                yield _completed(whole, lease.rule)

    def _measure(self, lease: _Lease) -> Iterator[Completed | Decided]:
        """Measure both policies at external responses and at tails."""
        sampler = self.config.workers["base"].sampler
        for part in _parts(lease.unmeasured):
            responses = [unmeasured.response for unmeasured in part]
            for message in measure_responses(self.engines, responses, sampler):
                if isinstance(message, Decided):
                    if not lease.tails:  # the tokens of tails were counted when they were decided
                        yield message
                    continue
                whole: list[_Whole] = []
                for sequence in np.unique(message["sequence"].to_numpy()):
                    segment, stopped, _ = part[sequence]
                    rows = rows_of(message, sequence)
                    if segment.prefix is not None:
                        rows = pa.concat_tables([segment.prefix, rows])
                    whole += [_Whole(member, segment, stopped, rows) for member in segment.members]
                yield _completed(whole, lease.rule)

    def _paired_phase(self, segments: list[Segment], rule: Rule) -> Iterator[_Batch | Decided]:
        """What both engines finish of these segments, the two sides merged."""
        phase = phase_of(segments, rule, self._stop_token)
        unmatched: dict[str, list[Finished]] = {policy: [] for policy in POLICIES}
        for policy, message in self.engines.stream(dict.fromkeys(POLICIES, phase)):
            if isinstance(message, Decided):
                if policy == "base":  # both engines decide the same tokens
                    self._forecast.note_tokens(message.num_tokens, message.seconds)
                    yield message
                continue
            unmatched[policy].append(message)
            if all(unmatched.values()):
                base, rl = (unmatched[policy].pop(0) for policy in POLICIES)
                same_sequences = np.array_equal(base.sequence, rl.sequence)
                if not (same_sequences and np.array_equal(base.emitted, rl.emitted)):
                    raise LockstepError("the engines finished different sequences")
                yield _batch(base, merge_sides(base.trace, rl.trace))
        if any(unmatched.values()):
            raise LockstepError("one engine finished sequences that the other did not")

    def _solo_phase(self, segments: list[Segment]) -> Iterator[_Batch | Decided]:
        """Segments of both directions at once, each under its primary's weights."""
        phases: dict[str, tuple[Phase, Requests]] = {}
        index_of: dict[str, Ints] = {}
        for policy in POLICIES:
            on_base = policy == "base"
            indices = [n for n, segment in enumerate(segments) if segment.job.forward == on_base]
            if indices:
                own = [segments[index] for index in indices]
                phases[policy] = phase_of(own, None, self._stop_token)
                index_of[policy] = np.array(indices)
        solo = SoloPhase(self.engines, phases, self._num_slots, self._forecast)
        for message in solo.messages():
            if isinstance(message, Decided):
                yield message
                continue
            primary, finished = message
            base, rl = (finished.trace if primary == policy else None for policy in POLICIES)
            batch = _batch(finished, merge_sides(base, rl))
            if batch.handed_back.any():
                raise LockstepError("an engine emitted tokens that its sampler has not recorded")
            yield _renumber(batch, index_of[primary])


def _parts(unmeasured: Sequence[_Unmeasured]) -> Iterator[list[_Unmeasured]]:
    """Responses that are measured together: what is asked of an engine at once must stay small."""
    part: list[_Unmeasured] = []
    num_tokens = 0
    for one in unmeasured:
        if part and num_tokens + len(one.tokens) > _MEASURED_AT_ONCE:
            yield part
            part, num_tokens = [], 0
        part.append(one)
        num_tokens += len(one.tokens)
    if part:
        yield part


class _Lease:
    """The segments of a lease that are still to be made."""

    def __init__(self, jobs: Sequence[Job], rule: Rule) -> None:
        self.rule, self._jobs = rule, jobs
        self.paired: list[Segment] = []
        self.tails: list[Segment] = []
        self.unmeasured: list[_Unmeasured] = []
        for group in group_forks(job.fork_group for job in jobs):
            group.sort(key=lambda index: jobs[index].interventions_left)
            stem = group[-1]
            external = jobs[stem].external
            spent = len(external or ())
            segment = Segment(jobs[stem], [Member(index, stem, spent) for index in group])
            if external is not None:
                self.unmeasured.append(_Unmeasured(segment, False, external))
            elif segment.job.interventions_left > 0:
                self.paired.append(segment)
            else:
                self.tails.append(segment)

    def take_paired(self) -> list[Segment]:
        """The segments of the next paired phase."""
        paired, self.paired = self.paired, []
        return paired

    def settle(
        self, segment: Segment, stopped: bool, handed_back: bool, rows: pa.Table
    ) -> list[_Whole]:
        """Take the rows of a stem that has left the engines.

        Returns:
            The members that end with it. The others are queued: as tails where they fork, or all
            of them for another paired phase where random positions must be drawn again.
        """
        if redrawn := _redraw(segment.job, rows, self.rule):
            self.paired.append(replace(segment, job=redrawn))
            return []
        ends, forks = _branches(self._jobs, segment, rows, handed_back)
        self.tails += forks
        return [_Whole(member, segment, stopped, rows) for member in ends]


def _branches(
    jobs: Sequence[Job], segment: Segment, rows: pa.Table, handed_back: bool
) -> tuple[list[Member], list[Segment]]:
    """The members of a stem whose tokens end with it, and the tails of the others.

    Members that fork at the same row share one tail.
    """
    intervened, effective = (rows.column(name).to_numpy() for name in ("intervened", "effective"))
    ends: list[Member] = []
    forks: dict[int, Segment] = {}
    for member in segment.members:
        budget = jobs[member.job_index].interventions_left
        spent, num_shared = branch(intervened, effective, budget)
        member = member._replace(spent=spent)
        if num_shared == rows.num_rows and not handed_back:
            ends.append(member)
            continue
        if num_shared not in forks:
            forks[num_shared] = Segment(segment.job, [], rows.slice(0, num_shared))
        forks[num_shared].members.append(member)
    return ends, list(forks.values())


def _redraw(job: Job, rows: pa.Table, rule: Rule) -> Job | None:
    """The job with other random positions, where its response has too few interventions.

    A response may end before some of its positions, or drop an intervention that proposes a stop
    token. The positions are then drawn below the response's own length, or as many more of them as
    were dropped.

    Returns:
        None where the response has enough interventions, or no room for more.
    """
    length = rows.num_rows
    num_missing = job.interventions_left - int(rows.column("intervened").to_numpy().sum())
    if job.position_limit is None or not num_missing:
        return None
    if length < job.position_limit:
        limit = max(length, rule.start + job.interventions_left)
        return replace(job, position_limit=limit) if limit < job.position_limit else None
    if job.num_positions >= min(length, rule.stop) - rule.start:
        return None
    return replace(job, position_limit=length, num_positions=job.num_positions + num_missing)


def _completed(whole: list[_Whole], rule: Rule) -> Completed:
    """The rows of each member, without the twin's numbers where its budget was spent."""
    whole.sort(key=lambda finished: finished.member.job_index)
    members = [finished.member for finished in whole]
    job = np.array([member.job_index for member in members])
    num_rows = np.array([finished.rows.num_rows for finished in whole])
    spent = np.concatenate(
        [np.arange(n) >= member.spent for n, member in zip(num_rows, members, strict=True)]
    )
    forward = np.repeat([finished.segment.job.forward for finished in whole], num_rows)
    tokens = pa.concat_tables([finished.rows for finished in whole])
    sequence = pa.array(np.repeat(job, num_rows).astype(np.int32))
    tokens = tokens.set_column(0, "sequence", sequence)
    tokens = without_twin(tokens, spent, forward, keep_numbers=rule.trace == "full")
    stopped = np.array([finished.stopped for finished in whole], np.bool_)
    return Completed(job, stopped, tokens, np.array([member.stem_index for member in members]))


def _batch(finished: Finished, tokens: pa.Table) -> _Batch:
    """A message of the engines, in the order of its sequences.

    A sequence that was handed back has emitted a stop token for which there is no row.
    """
    order = np.argsort(finished.sequence)
    sequence, emitted = finished.sequence[order], finished.emitted[order]
    num_rows = lengths(tokens, sequence)
    handed_back = emitted == num_rows + 1
    if (emitted[~handed_back] != num_rows[~handed_back]).any():
        raise LockstepError("an engine emitted tokens that its sampler has not recorded")
    return _Batch(sequence, finished.stopped[order], handed_back, tokens)


def _renumber(batch: _Batch, index_of: Ints) -> _Batch:
    """Turn indices of one engine's phase into indices of all segments, which are in their order."""
    numbers = index_of[batch.tokens.column("sequence").to_numpy()].astype(np.int32)
    tokens = batch.tokens.set_column(0, "sequence", pa.array(numbers))
    return batch._replace(sequence=index_of[batch.sequence], tokens=tokens)
