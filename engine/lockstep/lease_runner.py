"""Pair: two engines in lock-step; takes a lease of trajectories, gives back finished ones.

A lease is run in stages, which never share a phase of an engine. Trajectories that differ in their
budget only are one stem: the paired phase carries it with the largest budget, the others fork from
it (`fork`). Then each engine alone continues the tails whose primary it has, both directions at
once. Anything that goes wrong is an EngineError; the pair is then killed and started anew by the
scheduler.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from engine.arrays import Bools, Ints
from engine.errors import LockstepError
from engine.lockstep.engine_pair import POLICIES, EnginePair, PairConfig
from engine.lockstep.fork import branch, stems
from engine.lockstep.job import Job, Member, Segment, phase_of
from engine.lockstep.merge import lengths, merge_sides, rows_of, without_twin
from engine.lockstep.worker import Finished, PolicyWorker, Progress
from engine.sampling.rule import Rule


@dataclass(frozen=True, slots=True)
class Completed:
    """Finished jobs of a lease. job [F] ascending; stopped [F], else cut at max_tokens; tokens:
    their joined rows, `sequence` indexes the lease. stem [F]: the job whose trajectory each was
    forked from, itself if none.
    """

    job: Ints
    stopped: Bools
    tokens: pa.Table
    stem: Ints


class _Whole(NamedTuple):
    """A finished trajectory: whose it is, the segment that made it, and its rows with the twin's
    numbers.
    """

    member: Member
    segment: Segment
    stopped: bool
    rows: pa.Table


class _Batch(NamedTuple):
    """Finished sequences of a phase: sequence [F] ascending, stopped [F], handed_back [F], their
    joined rows.
    """

    sequence: Ints
    stopped: Bools
    handed_back: Bools
    tokens: pa.Table


class LeaseRunner:
    """Two engines. `start`, then `run` leases one after the other; `kill` always, also after an
    error.
    """

    def __init__(self, config: PairConfig, worker_class: type[PolicyWorker] = PolicyWorker) -> None:
        self.twins, self.name = EnginePair(config, worker_class), f"pair {config.number}"
        self._stop_token = config.workers["base"].stop_token_ids[0]

    def start(self, tell: Callable[[str], object] = lambda line: None) -> str:
        """Place, load and introduce the two engines. Returns a line for the user. Raises
        EngineError.

        tell: is given the line that says where, before anything is loaded.
        """
        tell(f"{self.name}: {self.twins.place()}")
        return f"{self.name}: ready, {self.twins.load()} KV blocks an engine"

    def kill(self) -> None:
        """End both engines now, whatever they are doing."""
        self.twins.kill()

    def run(self, jobs: Sequence[Job], rule: Rule) -> Iterator[Completed | Progress]:
        """Run a lease to its end. Raises EngineError (LockstepError) at the first sign that
        something is wrong.
        """
        paired: list[Segment] = []
        tails: list[Segment] = []
        for group in stems([job.stem for job in jobs], [job.allowed for job in jobs]):
            stem = Segment(jobs[group[-1]], [Member(index, group[-1], 0) for index in group])
            alone = stem.job.allowed == 0 and stem.job.given is None
            (tails if alone else paired).append(stem)
        while paired:
            again: list[Segment] = []
            yield from self._run_stems(jobs, paired, rule, tails, again)
            paired = again
        yield from self._run_tails(tails, rule)

    def _run_stems(
        self,
        jobs: Sequence[Job],
        paired: list[Segment],
        rule: Rule,
        tails: list[Segment],
        again: list[Segment],
    ) -> Iterator[Completed | Progress]:
        """Carry `paired` with their largest budgets; what forks or is handed back goes to
        `tails`.
        """
        for batch in self._paired(paired, rule):
            if isinstance(batch, Progress):
                yield batch
                continue
            whole: list[_Whole] = []
            for sequence, stopped, handed_back in zip(*batch[:3], strict=True):
                segment, rows = paired[sequence], rows_of(batch.tokens, sequence)
                if redrawn := _redrawn(segment.job, rows, rule):
                    again.append(replace(segment, job=redrawn))
                    continue
                ends, forks = _branches(jobs, segment, rows, handed_back)
                whole += [_Whole(member, segment, stopped, rows) for member in ends]
                tails += forks
            if whole:
                yield _complete(whole, rule)

    def _run_tails(self, tails: list[Segment], rule: Rule) -> Iterator[Completed | Progress]:
        """Continue under the primary alone; with trace "full" beside its twin, which only
        measures.
        """
        if not tails:
            return
        follow = self._beside(tails, rule) if rule.trace == "full" else self._alone(tails)
        for batch in follow:
            if isinstance(batch, Progress):
                yield batch
                continue
            whole = []
            for sequence, stopped, _ in zip(*batch[:3], strict=True):
                segment, rows = tails[sequence], rows_of(batch.tokens, sequence)
                rows = rows if segment.prefix is None else pa.concat_tables([segment.prefix, rows])
                whole += [_Whole(member, segment, stopped, rows) for member in segment.members]
            yield _complete(whole, rule)

    def _beside(self, tails: list[Segment], rule: Rule) -> Iterator[_Batch | Progress]:
        return self._paired(
            [replace(segment, job=replace(segment.job, budget=0)) for segment in tails], rule
        )

    def _paired(self, segments: list[Segment], rule: Rule) -> Iterator[_Batch | Progress]:
        """A paired phase: what both engines finish, joined."""
        phase = phase_of(segments, rule, self._stop_token)
        waiting: dict[str, list[Finished]] = {policy: [] for policy in POLICIES}
        for policy, message in self.twins.stream(dict.fromkeys(POLICIES, phase)):
            if isinstance(message, Progress):
                if policy == "base":
                    yield message
                continue
            waiting[policy].append(message)
            if all(waiting.values()):
                base, rl = (waiting[p].pop(0) for p in POLICIES)
                if not (
                    np.array_equal(base.sequence, rl.sequence)
                    and np.array_equal(base.emitted, rl.emitted)
                ):
                    raise LockstepError("the engines finished different sequences")
                yield _batch(base, merge_sides(base.trace, rl.trace))
        if any(waiting.values()):
            raise LockstepError("one engine finished sequences that the other did not")

    def _alone(self, segments: list[Segment]) -> Iterator[_Batch | Progress]:
        """Both directions' segments at once, each on its primary's engine."""
        work, index_of = {}, {}
        for policy in POLICIES:
            mine = [
                index
                for index, segment in enumerate(segments)
                if segment.job.forward == (policy == "base")
            ]
            if mine:
                work[policy] = phase_of([segments[index] for index in mine], None, self._stop_token)
                index_of[policy] = np.array(mine)
        for policy, message in self.twins.stream(work):
            if isinstance(message, Progress):
                yield message
                continue
            batch = _batch(
                message,
                merge_sides(
                    *((message.trace, None) if policy == "base" else (None, message.trace))
                ),
            )
            if batch.handed_back.any():
                raise LockstepError("an engine emitted tokens that its sampler has not recorded")
            yield _renumber(batch, index_of[policy])


def _branches(
    jobs: Sequence[Job], segment: Segment, rows: pa.Table, handed_back: bool
) -> tuple[list[Member], list[Segment]]:
    """The members of a stem whose tokens end with it, and the tails of the others: one a place
    where they fork.
    """
    intervened, effective = (rows.column(name).to_numpy() for name in ("intervened", "effective"))
    ends: list[Member] = []
    forks: dict[int, Segment] = {}
    for member in segment.members:
        spent, shared = branch(intervened, effective, jobs[member.job].allowed)
        member = member._replace(spent=spent)
        if shared == rows.num_rows and not handed_back:
            ends.append(member)
        else:
            forks.setdefault(
                shared, Segment(segment.job, [], rows.slice(0, shared))
            ).members.append(member)
    return ends, list(forks.values())


def _redrawn(job: Job, rows: pa.Table, rule: Rule) -> Job | None:
    """The job with other random positions, if its response did not reach as many as it has to, or
    dropped some.

    Below its own length, but never so few that they could not be enough; as many more as were
    dropped (eos). None where it has enough, or there is no room for more.
    """
    length = rows.num_rows
    missed = job.allowed - int(rows.column("intervened").to_numpy().sum())
    if job.position_limit is None or not missed:
        return None
    if length < job.position_limit:
        position_limit = max(length, rule.start + job.allowed)
        return (
            replace(job, position_limit=position_limit)
            if position_limit < job.position_limit
            else None
        )
    room = min(length, rule.stop) - rule.start
    return (
        replace(job, position_limit=length, num_positions=job.num_positions + missed)
        if job.num_positions < room
        else None
    )


def _complete(whole: list[_Whole], rule: Rule) -> Completed:
    """Each member's rows, without the twin's numbers where its budget was spent."""
    whole.sort(key=lambda one: one.member.job)
    members = [one.member for one in whole]
    job, size = np.array([m.job for m in members]), np.array([one.rows.num_rows for one in whole])
    spent = np.concatenate([np.arange(n) >= m.spent for n, m in zip(size, members, strict=True)])
    forward = np.repeat([one.segment.job.forward for one in whole], size)
    tokens = pa.concat_tables([one.rows for one in whole])
    tokens = tokens.set_column(0, "sequence", pa.array(np.repeat(job, size).astype(np.int32)))
    tokens = without_twin(tokens, spent, forward, both=rule.trace == "full")
    stopped = np.array([one.stopped for one in whole], np.bool_)
    return Completed(job, stopped, tokens, np.array([m.stem for m in members]))


def _batch(finished: Finished, tokens: pa.Table) -> _Batch:
    """A message of the engines; a sequence that was handed back has emitted a stop token without a
    row.
    """
    order = np.argsort(finished.sequence)
    sequence, emitted, stopped = (
        finished.sequence[order],
        finished.emitted[order],
        finished.stopped[order],
    )
    num_rows = lengths(tokens, sequence)
    handed_back = emitted == num_rows + 1
    if (emitted[~handed_back] != num_rows[~handed_back]).any():
        raise LockstepError("an engine emitted tokens that its sampler has not recorded")
    return _Batch(sequence, stopped, handed_back, tokens)


def _renumber(batch: _Batch, index_of: Ints) -> _Batch:
    """From numbers of one engine's phase to numbers of all segments, which rise with them."""
    column = pa.array(index_of[batch.tokens.column("sequence").to_numpy()].astype(np.int32))
    return batch._replace(
        sequence=index_of[batch.sequence], tokens=batch.tokens.set_column(0, "sequence", column)
    )
