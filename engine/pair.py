"""Pair: two engines in lock-step; takes a lease of trajectories, gives back finished ones.

A lease is run in two stages, which never share a phase of an engine: first the paired phase carries every trajectory
that may intervene; then each engine alone continues those of its direction whose budget is spent (budget 0: from the
start). Anything that goes wrong is an EngineError; the pair is then killed and started anew by the scheduler.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.errors import LockstepError
from engine.intervention import UNLIMITED
from engine.join import join_sides, lengths, rows_of
from engine.launch import POLICIES, PairConfig, Twins
from engine.sampler import Phase
from engine.worker import Finished, PolicyWorker, Progress, Requests


@dataclass(frozen=True, slots=True)
class Job:
    """One trajectory to be made: prompt token ids, noise key, direction, budget (None: unlimited), most tokens."""

    prompt: list[int]
    noise_key: int
    forward: bool
    budget: int | None
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Completed:
    """Finished jobs of a lease. job [F] ascending; stopped [F], else cut at max_tokens; tokens: their joined rows,
    `sequence` indexes the lease."""

    job: npt.NDArray[np.int64]
    stopped: npt.NDArray[np.bool_]
    tokens: pa.Table


class Pair:
    """Two engines. `start`, then `run` leases one after the other; `kill` always, also after an error."""

    def __init__(self, config: PairConfig, worker_class: type[PolicyWorker] = PolicyWorker) -> None:
        self.twins = Twins(config, worker_class)
        self._stop_token = config.workers["base"].stop_token_ids[0]

    def start(self) -> str:
        """Place, load and introduce the two engines. Returns a line that says where. Raises EngineError."""
        return self.twins.start()

    def kill(self) -> None:
        """End both engines now, whatever they are doing."""
        self.twins.kill()

    def run(self, jobs: Sequence[Job]) -> Iterator[Completed | Progress]:
        """Run a lease to its end. Raises EngineError (LockstepError) at the first sign that something is wrong."""
        pieces: dict[int, pa.Table] = {}  # what a handed-back trajectory has so far
        paired = [index for index, job in enumerate(jobs) if job.budget != 0]
        if paired:
            yield from self._run_paired(jobs, paired, pieces)
        alone = [index for index, job in enumerate(jobs) if job.budget == 0 or index in pieces]
        yield from self._run_solo(jobs, alone, pieces)

    def _run_paired(
        self, jobs: Sequence[Job], indices: list[int], pieces: dict[int, pa.Table]
    ) -> Iterator[Completed | Progress]:
        index_of = np.array(indices)
        phase = self._phase([jobs[i] for i in indices], [[]] * len(indices), paired=True)
        waiting: dict[str, list[Finished]] = {policy: [] for policy in POLICIES}
        for policy, message in self.twins.stream(dict.fromkeys(POLICIES, phase)):
            if isinstance(message, Progress):
                if policy == "base":
                    yield message
                continue
            waiting[policy].append(message)
            if all(waiting.values()):
                base, rl = (waiting[p].pop(0) for p in POLICIES)
                if not (np.array_equal(base.sequence, rl.sequence) and np.array_equal(base.emitted, rl.emitted)):
                    raise LockstepError("the engines finished different sequences")
                finished, tokens = _renumber(base, join_sides(base.trace, rl.trace), index_of)
                yield _split(finished, tokens, pieces)
        if any(waiting.values()):
            raise LockstepError("one engine finished sequences that the other did not")

    def _run_solo(
        self, jobs: Sequence[Job], indices: list[int], pieces: dict[int, pa.Table]
    ) -> Iterator[Completed | Progress]:
        """Both directions' lists at once, each on its primary's engine."""
        work, index_of = {}, {}
        for policy in POLICIES:
            mine = [i for i in indices if jobs[i].forward == (policy == "base")]
            if not mine:
                continue
            prefixes = [pieces[i].column("token").to_pylist() if i in pieces else [] for i in mine]
            work[policy] = self._phase([jobs[i] for i in mine], prefixes, paired=False)
            index_of[policy] = np.array(mine)
        for policy, message in self.twins.stream(work):
            if isinstance(message, Progress):
                yield message
                continue
            sides = (message.trace, None) if policy == "base" else (None, message.trace)
            finished, tokens = _renumber(message, join_sides(*sides), index_of[policy])
            if not np.array_equal(finished.emitted, lengths(tokens, finished.sequence)):
                raise LockstepError("an engine emitted tokens that its sampler has not recorded")
            whole = []
            for index in map(int, finished.sequence):
                whole += [pieces.pop(index)] if index in pieces else []
                whole.append(rows_of(tokens, index))
            yield Completed(finished.sequence, finished.stopped, pa.concat_tables(whole))

    def _phase(self, jobs: Sequence[Job], prefixes: Sequence[list[int]], paired: bool) -> tuple[Phase, Requests]:
        offset = np.array([len(prefix) for prefix in prefixes], np.int64)
        phase = Phase(
            paired=paired,
            key=np.array([job.noise_key for job in jobs], np.uint64),
            forward=np.array([job.forward for job in jobs], np.bool_),
            budget=np.array([UNLIMITED if job.budget is None else job.budget for job in jobs], np.int64),
            offset=offset,
            stop_token=self._stop_token,
        )
        prompts = [job.prompt + prefix for job, prefix in zip(jobs, prefixes, strict=True)]
        return phase, Requests(prompts, [job.max_tokens - int(o) for job, o in zip(jobs, offset, strict=True)])


def _renumber(finished: Finished, tokens: pa.Table, index_of: npt.NDArray[np.int64]) -> tuple[Finished, pa.Table]:
    """From numbers of the phase to numbers of the lease (which rise with them), in rising order."""
    order = np.argsort(finished.sequence)
    sequence = index_of[finished.sequence[order]]
    column = pa.array(index_of[tokens.column("sequence").to_numpy()].astype(np.int32))
    renumbered = replace(finished, sequence=sequence, emitted=finished.emitted[order], stopped=finished.stopped[order])
    return renumbered, tokens.set_column(0, "sequence", column)


def _split(finished: Finished, tokens: pa.Table, pieces: dict[int, pa.Table]) -> Completed:
    """Keep what was handed back (its stop token has no row) in `pieces`; the rest is complete."""
    num_rows = lengths(tokens, finished.sequence)
    handed_back = finished.emitted == num_rows + 1
    if (finished.emitted[~handed_back] != num_rows[~handed_back]).any():
        raise LockstepError("an engine emitted tokens that its sampler has not recorded")
    for index in finished.sequence[handed_back]:
        pieces[int(index)] = rows_of(tokens, int(index))
    complete = finished.sequence[~handed_back]
    mine = np.isin(tokens.column("sequence").to_numpy(), complete)
    return Completed(complete, finished.stopped[~handed_back], tokens.filter(pa.array(mine)))
