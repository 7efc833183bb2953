"""The recorder of a run: finished trajectories become rows, rows become parts on disk."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from functools import cached_property

import pyarrow as pa

from engine.core import TRAJECTORY_KEY, Failure, Trajectory
from engine.errors import GivenUpError
from engine.run.grading import Grader, Grading
from engine.run.plan import Plan
from engine.run.progress import Progress
from engine.run.rows import fork_budgets, response_rows, token_rows
from engine.run.scheduler import Done, GivenUp
from engine.shard import WHOLE
from engine.store.run_store import RunStore
from engine.system.display import Display
from engine.system.log import log_event

# A part is committed when it has this many trajectories, or is this old.
_PART_TRAJECTORIES, _PART_SECONDS = 512, 10.0
_COUNTED = ("interventions", "effective_interventions")


class Recorder:
    """Takes what the scheduler has finished, and writes it to the run directory.

    Args:
        plan: The run.
        store: Its run directory, open for writing.
        grader: What grades the responses; None where nothing is graded.
        display: Where progress is shown.
    """

    def __init__(
        self, plan: Plan, store: RunStore, grader: Grader | None, display: Display
    ) -> None:
        self._plan, self._store, self._display = plan, store, display
        committed = store.done()
        self._done = committed if plan.shard == WHOLE else committed & set(self._expected())
        self._grading = Grading(grader)
        self.progress = Progress(self.num_expected, plan.time_left, plan.cost.num_gpus)
        self._failures: list[Failure] = []
        self._pending: list[tuple[pa.Table, pa.Table]] = []
        self._num_pending, self._part_began = 0, time.monotonic()
        self._count_earlier_sessions()
        self._write_failures()  # none yet: those of an earlier session are tried again

    @property
    def num_done(self) -> int:
        """Trajectories that are made, in this session or an earlier one."""
        return len(self._done)

    @cached_property
    def num_expected(self) -> int:
        """Trajectories that this process is to make, in all sessions."""
        return sum(1 for _ in self._expected())

    def missing(self) -> list[Trajectory]:
        """The trajectories of the plan that are not made."""
        return [key for key in self._expected() if key not in self._done]

    def describe_missing(self) -> str:
        """One sentence for the user of a run that has ended too early."""
        missing, out = self.missing(), self._plan.out
        first = f"the first is {missing[0]}; " if missing else ""
        return (
            f"{len(missing)} of {self.num_expected} trajectories are missing, {first}the rest is"
            f" in {out}: run the same command with --out {out} to go on"
        )

    def add(self, done: Done, keys: Sequence[Trajectory]) -> None:
        """Record finished trajectories.

        Args:
            done: What has finished of a lease.
            keys: The trajectories of that lease, which `done.completed.job` indexes.
        """
        completed, work = done.completed, self._plan.work
        finished = [keys[index] for index in completed.job]
        responses = response_rows(
            completed.tokens,
            keys,
            completed.job,
            prompts=[work.prompt(key) for key in finished],
            stopped=work.stopped(finished, completed.stopped),
            forked_from=fork_budgets(keys, completed.job, completed.stem_index),
            tokenizer=self._plan.pair.tokenizer,
            seed=self._plan.config.seed,
        )
        self._pending.append((token_rows(completed.tokens, keys), responses))
        self._num_pending += len(finished)
        self._done.update(finished)
        self.progress.add_responses(responses, made_now=True)
        for key, text in zip(finished, responses["text"].to_pylist(), strict=True):
            self._grading.submit(key, text)
        age = time.monotonic() - self._part_began
        if self._num_pending >= _PART_TRAJECTORIES or age > _PART_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Write what is not on disk yet, as one part."""
        self._part_began = time.monotonic()
        if self._pending:
            tokens, responses = map(pa.concat_tables, zip(*self._pending, strict=True))
            # Forgotten first: after a failed write these trajectories count as not made, and are
            # never written twice.
            self._pending, self._num_pending = [], 0
            self._store.commit(tokens, responses)
            log_event(
                "a part is committed", trajectories=responses.num_rows, tokens=tokens.num_rows
            )

    def give_up(self, keys: Sequence[Trajectory], event: GivenUp) -> None:
        """Record trajectories that have failed again and again."""
        self._failures += [Failure(key, event.attempts, event.error) for key in keys]
        self._display.note(
            f"{len(keys)} trajectories failed {event.attempts} times and are given up, the first"
            f" is {keys[0]}"
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

    def refresh(self) -> None:
        """Take the grades that are ready, and show how far the run is."""
        self._grading.poll()
        self._show_progress()

    def finish(self) -> None:
        """Wait for the grades and write them.

        Raises:
            GivenUpError: Trajectories were given up, and no later step would say so.
        """
        self._check_given_up()
        if self._grading.is_on:
            self._display.stage("grading")
            self._store.write_grades(self._grading.finish())
        self._show_progress()

    def _show_progress(self) -> None:
        num_graded, num_correct = len(self._grading.grades), self._grading.num_correct
        self._display.update(self.progress.snapshot(self.num_done, num_graded, num_correct))

    def _expected(self) -> Iterator[Trajectory]:
        return self._plan.shard.share(self._plan.work.trajectories())

    def _count_earlier_sessions(self) -> None:
        if self._plan.shard != WHOLE:
            return  # it is not graded here, and most of it is of other shards
        for part in self._store.response_parts([*TRAJECTORY_KEY, "text", *_COUNTED]):
            self.progress.add_responses(part, made_now=False)
            columns = (part[name].to_pylist() for name in (*TRAJECTORY_KEY, "text"))
            for *key, text in zip(*columns, strict=True):
                self._grading.submit(Trajectory(*key), text)

    def _check_given_up(self) -> None:
        failures = self._failures
        if failures and (self._plan.shard != WHOLE or not self._done):
            raise GivenUpError(
                f"{len(failures)} of {self.num_expected} trajectories failed"
                f" {failures[0].attempts} times and were given up, the last with:"
                f" {failures[-1].error}. The same command with --out {self._plan.out} tries them"
                " again"
            )

    def _write_failures(self) -> None:
        if self._plan.shard == WHOLE:  # the run without --shard that ends it tries all again
            self._store.write_failures(self._failures)
