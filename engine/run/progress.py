"""How far a run is: what has been counted, and the rates that follow from it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from engine.run.time_left import Seen, TimeLeft
from engine.system.display import Snapshot


class Progress:
    """Counts of a run, and its rate and remaining time.

    Args:
        num_expected: Trajectories that this process is to make, earlier sessions included.
        time_left: What is expected of the run.
        num_gpus: GPUs that the run holds; 0 on a CPU.
        clock: Seconds, from anywhere; tests give their own.
    """

    def __init__(
        self,
        num_expected: int,
        time_left: TimeLeft,
        num_gpus: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_expected, self._time_left, self._clock = num_expected, time_left, clock
        self._num_gpus = num_gpus
        self._began = clock()
        self._first_ready: float | None = None
        self._num_made_now = self._num_tokens = self._num_tokens_then = 0
        self._interventions = self._effective = 0

    def engines_ready(self) -> None:
        """Note that a pair is ready; rates count from the first that is."""
        if self._first_ready is None:
            self._first_ready = self._clock()

    def add_tokens(self, num_decided: int) -> None:
        """Count tokens that the engines have decided, finished responses or not."""
        self._num_tokens += num_decided

    def add_responses(self, responses: pa.Table, made_now: bool) -> None:
        """Count finished responses, with their interventions.

        Args:
            responses: Rows with the columns interventions and effective_interventions.
            made_now: False for what an earlier session has made: no rate is taken from it.
        """
        self._interventions += pc.sum(responses["interventions"]).as_py() or 0
        self._effective += pc.sum(responses["effective_interventions"]).as_py() or 0
        if made_now:
            self._num_made_now += responses.num_rows
            self._num_tokens_then = self._num_tokens

    def snapshot(self, num_done: int, num_graded: int, num_correct: int) -> Snapshot:
        """The state of the run now, for the display."""
        now = self._clock()
        working = 0.0 if self._first_ready is None else now - self._first_ready
        seen = Seen(self._num_tokens, self._num_made_now, working, self._num_tokens_then)
        eta_s = self._time_left.remaining_seconds(seen, self._num_expected - num_done)
        gpu_hours = None
        if self._num_gpus and eta_s is not None:
            gpu_hours = self._num_gpus * (now - self._began + eta_s) / 3600
        return Snapshot(
            done=num_done,
            total=self._num_expected,
            tokens=self._num_tokens,
            tokens_per_s=self._num_tokens / working if working else 0.0,
            interventions=self._interventions,
            effective=self._effective,
            graded=num_graded,
            correct=num_correct,
            elapsed_s=now - self._began,
            eta_s=eta_s,
            gpu_hours=gpu_hours,
        )
