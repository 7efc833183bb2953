"""One run, wired: problems -> prompts -> pairs -> records -> store, graded on the way.

`prepare` checks everything that can be checked before an engine starts and gives a Plan; `execute`
carries it out. Running the same plan into the same directory resumes it: trajectories that are
committed are not made again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.core import TRAJECTORY_KEY, Failure, Grade, Trajectory
from engine.errors import EngineError, GivenUpError, IncompleteRunError
from engine.lockstep import cluster
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.lockstep.worker import Progress
from engine.models.prompt import token_texts
from engine.run.plan import Plan, prepare
from engine.run.rows import response_rows, token_rows
from engine.run.scheduler import Done, GivenUp, Note, Scheduler
from engine.run.work import Score, Sweep
from engine.shard import WHOLE
from engine.store.run_store import RunStore
from engine.system.display import Display, Snapshot
from engine.system.log import log_event, write_logs
from engine.system.signals import HeldSignals

# A part is committed when it has this many trajectories, or is this old.
_PART_TRAJECTORIES, _PART_SECONDS = 512, 10.0
_COUNTS = ("interventions", "effective_interventions")


class Grader(Protocol):
    """What the run needs of a grader; it must not hold the run up."""

    def submit(self, key: Trajectory, text: str) -> None: ...

    def poll(self) -> list[Grade]: ...

    def finish(self) -> list[Grade]: ...


def execute(plan: Plan, grader: Grader | None, display: Display) -> RunStore:
    """Make every trajectory of the plan's shard that is not there yet. Returns the run directory,
    closed, graded.

    grader: None where no gold answer is known, and for a shard; then there are no grades.

    Raises IncompleteRunError, EngineError, StoreError, RunDirectoryError; KeyboardInterrupt (and
    what SIGTERM raises) after clean-up. Whatever happens, what was committed stays.
    """
    with RunStore.open(plan.out, plan.manifest(), plan.shard) as store:
        if store.note:
            display.note(store.note)
        write_logs(plan.log_config("driver"))
        log_event(
            "the run begins",
            out=str(plan.out),
            shard=str(plan.shard),
            versions=store.manifest["versions"],
        )
        store.write_problems(plan.problems, plan.work.gated)
        store.write_vocabulary(lambda: token_texts(plan.pair.tokenizer, plan.pair.vocab_size))
        recorder = _Recorder(plan, store, grader, display)
        todo = recorder.missing()
        if todo:
            display.stage("starting Ray")
            with HeldSignals() as signals, plan.cluster():
                signals.check()
                _make(plan, todo, recorder, signals, display)
        recorder.finish()
        log_event("the run ends", trajectories=recorder.num_done)
        _say_what_no_control_can_match(plan, store, display)
    return store


def _say_what_no_control_can_match(plan: Plan, store: RunStore, display: Display) -> None:
    """A response that is too short for as many interventions has fewer, and the user must know."""
    matched = plan.work.matched if isinstance(plan.work, Sweep) else None
    if not matched:
        return
    made = store.responses([*TRAJECTORY_KEY, "interventions"]).to_pylist()
    wanted = {key: counts.interventions for key, counts in matched.items()}
    fewer = sum(
        row["interventions"] < wanted[Trajectory(*(row[name] for name in TRAJECTORY_KEY))]
        for row in made
    )
    if fewer:
        display.note(
            f"{fewer:,} of {len(made):,} responses have fewer interventions than in "
            f"{plan.config.match}: "
            "they have no more positions where one was possible"
        )


def _make(
    plan: Plan,
    keys: Sequence[Trajectory],
    recorder: _Recorder,
    signals: HeldSignals,
    display: Display,
) -> None:
    """The main loop: whatever finishes is recorded."""
    display.stage(f"loading {plan.pair.base} and {plan.pair.rl}")
    pairs = [LeaseRunner(plan.pair_config(number)) for number in range(plan.config.pairs)]
    scheduler = Scheduler(
        pairs, [plan.work.job(key) for key in keys], plan.rule, plan.config.max_num_seqs
    )
    try:
        for event in scheduler.events():
            match event:
                case Done():
                    recorder.add(event, [keys[index] for index in event.jobs])
                case Progress():
                    recorder.count(event.decided)
                case GivenUp():
                    recorder.give_up([keys[index] for index in event.jobs], event)
                case Note():
                    display.note(event.text)
                    log_event(event.text, on_screen=True)
                    if event.ready:
                        display.stage(
                            "measuring" if isinstance(plan.work, Score) else "cross-sampling"
                        )
                        recorder.started()
            recorder.refresh()
            signals.check()
            cluster.check()
    except (IncompleteRunError, EngineError) as error:
        recorder.commit()
        if isinstance(error, EngineError) and not recorder.num_done:
            raise  # nothing to resume: the settings are to be mended
        raise IncompleteRunError(f"{error}. {recorder.what_is_missing()}") from None
    finally:
        try:
            # first: engines that are dead or dying can take longer than a batch system waits
            recorder.commit()
        finally:
            scheduler.close()


class _Recorder:
    """What has finished, on its way to the store, the grader and the display."""

    def __init__(
        self, plan: Plan, store: RunStore, grader: Grader | None, display: Display
    ) -> None:
        self._plan, self._store, self._grader, self._display = plan, store, grader, display
        self._done = store.done() if plan.shard == WHOLE else store.done() & set(self._expected())
        self._failures: list[Failure] = []
        self._grades: list[Grade] = []
        self._parts: list[tuple[pa.Table, pa.Table]] = []
        self._num_waiting, self._part_began = 0, time.monotonic()
        self._began, self._ready = time.monotonic(), 0.0
        self._num_here = self._num_tokens = self._interventions = self._effective = (
            self._correct
        ) = 0
        self._count_what_is_there()
        self._write_failures()  # none yet: those of an earlier session are tried again

    def _expected(self) -> Iterator[Trajectory]:
        """The trajectories that this process is to make."""
        return self._plan.shard.share(self._plan.work.trajectories())

    def _count_what_is_there(self) -> None:
        if self._plan.shard != WHOLE:
            return  # it is not graded here, and most of it is of other shards
        for part in self._store.response_parts([*TRAJECTORY_KEY, "text", *_COUNTS]):
            self._interventions += pc.sum(part["interventions"]).as_py()
            self._effective += pc.sum(part["effective_interventions"]).as_py()
            for *key, text in zip(
                *(part[name].to_pylist() for name in (*TRAJECTORY_KEY, "text")), strict=True
            ):
                self._submit(Trajectory(*key), text)

    @cached_property
    def _num_expected(self) -> int:
        return sum(1 for _ in self._expected())

    @property
    def num_done(self) -> int:
        """Trajectories that are made, now or in an earlier session."""
        return len(self._done)

    def missing(self) -> list[Trajectory]:
        """The trajectories of the plan that are not committed."""
        return [key for key in self._expected() if key not in self._done]

    def what_is_missing(self) -> str:
        """One sentence for the user of a run that has ended too early."""
        missing, out = self.missing(), self._plan.out
        first = f"the first is {missing[0]}; " if missing else ""
        return (
            f"{len(missing)} of {self._num_expected} trajectories are missing, {first}the rest "
            "is in "
            f"{out}: run the same command with --out {out} to go on"
        )

    def add(self, done: Done, keys: Sequence[Trajectory]) -> None:
        """Take finished trajectories; `keys` are the lease's."""
        completed, work = done.completed, self._plan.work
        made = [keys[index] for index in completed.job]
        stopped = completed.stopped
        if isinstance(work, Score):  # made to the last token that was given, whatever it is
            stopped = np.array([work.stopped(key) for key in made], np.bool_)
        responses = response_rows(
            completed.tokens, keys, completed.job, [work.prompt(key) for key in made], stopped,
            _forked_from(completed, keys), self._plan.pair.tokenizer, self._plan.config.seed,
        )  # fmt: skip
        self._parts.append((token_rows(completed.tokens, keys), responses))
        self._num_waiting += len(completed.job)
        self._num_here += len(completed.job)
        self._interventions += pc.sum(responses["interventions"]).as_py()
        self._effective += pc.sum(responses["effective_interventions"]).as_py()
        for index, text in zip(completed.job, responses["text"].to_pylist(), strict=True):
            self._done.add(keys[index])
            self._submit(keys[index], text)
        if (
            self._num_waiting >= _PART_TRAJECTORIES
            or time.monotonic() - self._part_began > _PART_SECONDS
        ):
            self.commit()

    def commit(self) -> None:
        """Put on disk what is not there yet, as one part."""
        self._part_began = time.monotonic()
        if self._parts:
            tokens, responses = (
                pa.concat_tables(tables) for tables in zip(*self._parts, strict=True)
            )
            # Forgotten first: after a failed write these trajectories count as not made, and are
            # never written twice.
            self._parts, self._num_waiting = [], 0
            self._store.commit(tokens, responses)
            log_event(
                "a part is committed", trajectories=responses.num_rows, tokens=tokens.num_rows
            )

    def give_up(self, keys: Sequence[Trajectory], event: GivenUp) -> None:
        """Take trajectories that failed again and again."""
        self._failures += [Failure(key, event.attempts, event.error) for key in keys]
        self._display.note(
            f"{len(keys)} trajectories failed {event.attempts} times and are given up, the "
            f"first is {keys[0]}"
        )
        for key in keys:
            log_event(
                "given up",
                logging.WARNING,
                on_screen=True,
                trajectory=str(key),
                attempts=event.attempts,
                error=event.error,
            )
        self._write_failures()

    def count(self, num_decided: int) -> None:
        """Tokens that the engines have decided, finished or not."""
        self._num_tokens += num_decided

    def refresh(self) -> None:
        """Show where the run is."""
        self._take(self._grader.poll() if self._grader else [])
        now = time.monotonic()
        working = now - self._ready if self._ready else 0.0
        left = self._num_expected - len(self._done)
        self._display.update(
            Snapshot(
                done=len(self._done),
                total=self._num_expected,
                tokens=self._num_tokens,
                tokens_per_s=self._num_tokens / working if working else 0.0,
                interventions=self._interventions,
                effective=self._effective,
                graded=len(self._grades),
                correct=self._correct,
                elapsed_s=now - self._began,
                eta_s=left * working / self._num_here if self._num_here else None,
            )
        )

    def started(self) -> None:
        """A pair is ready: rates count from the first that is."""
        self._ready = self._ready or time.monotonic()

    def finish(self) -> None:
        """Wait for the grades and write them."""
        self._check_given_up()
        if self._grader:
            self._display.stage("grading")
            self._take(self._grader.finish())
            self._store.write_grades(self._grades)
        self.refresh()

    def _check_given_up(self) -> None:
        """Raise GivenUpError where trajectories failed again and again, and nobody after us will
        say so.
        """
        if self._failures and (self._plan.shard != WHOLE or not self._done):
            raise GivenUpError(
                f"{len(self._failures)} of {self._num_expected} trajectories failed "
                f"{self._failures[0].attempts} times "
                f"and were given up, the last with: {self._failures[-1].error}. The same "
                "command with "
                f"--out {self._plan.out} tries them again"
            )

    def _write_failures(self) -> None:
        if (
            self._plan.shard == WHOLE
        ):  # the run without --shard that ends it tries those of the shards again
            self._store.write_failures(self._failures)

    def _submit(self, key: Trajectory, text: str) -> None:
        if self._grader:
            self._grader.submit(key, text)

    def _take(self, grades: Sequence[Grade]) -> None:
        self._grades.extend(grades)
        self._correct += sum(grade.correct is True for grade in grades)


def _forked_from(completed: Completed, keys: Sequence[Trajectory]) -> list[int | None]:
    """As in record.RESPONSES: the stem's budget, -1 for unlimited, None for a trajectory that is
    its own stem.
    """
    budgets = (keys[stem].budget for stem in completed.stem)
    return [
        None if stem == job else -1 if budget is None else budget
        for job, stem, budget in zip(completed.job, completed.stem, budgets, strict=True)
    ]


__all__ = ["Grader", "execute", "prepare"]
