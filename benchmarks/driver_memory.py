"""Does the driver's memory stay flat over a long run? Through recorder, store and grader.

    python -m benchmarks.driver_memory [--trajectories 100_000] [--json FILE]

There are no engines: one lease of finished trajectories is recorded again and again, as a pair
would hand it over. What may grow is one verdict a trajectory, which is kept to be written at the
end; an aim says how much. Memory is the resident memory of this process, and growth that after the
first tenth of the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from benchmarks.memory import Watch
from benchmarks.result import Result, options, spread, spreads_table
from engine.lockstep.lease_runner import Completed
from engine.lockstep.merge import merge_sides
from engine.run.plan import prepare
from engine.run.recorder import Recorder
from engine.run.run_json import manifest_of
from engine.run.scheduler import Done
from engine.run.settings import load
from engine.store.run_store import RunStore
from engine.system.display import Display, Snapshot
from evaluators.grading.grader import Grader
from evaluators.tasks.registry import load_task

LEASE, TOKENS = 64, 16  # trajectories, and token rows of each
MAX_BYTES_A_TRAJECTORY = 700  # aim
TENTHS = 10


class Silent(Display):
    """A display that shows nothing."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def update(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def __exit__(self, *exception: object) -> None:
        """Nothing."""


def main() -> None:
    """Record the run, print the table."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--trajectories", type=int, default=100_000)
    asked = parser.parse_args()
    found = measure(asked)
    title = f"aim: at most {MAX_BYTES_A_TRAJECTORY} bytes a trajectory"
    found.publish([spreads_table(title, found.measured)], asked.json)


def measure(asked: argparse.Namespace) -> Result:
    """Peaks by tenths of the run, and growth a trajectory after the first."""
    with TemporaryDirectory(prefix="xsample-") as folder, Watch() as watch:
        num_recorded = record(Path(folder), asked.trajectories)
    peaks = watch.peaks(TENTHS)
    growth = (peaks[-1] - peaks[0]) / num_recorded * TENTHS / (TENTHS - 1)
    found = Result("driver_memory", {"trajectories": num_recorded})
    found.measured = {
        "growth, bytes a trajectory": spread([growth]),
        "peak resident memory, GB": spread([watch.peak / 1e9]),
    }
    found.details = {
        "peak_gb_by_tenth_of_a_run": [peak / 1e9 for peak in peaks],
        "aims": {"growth, bytes a trajectory": MAX_BYTES_A_TRAJECTORY},
    }
    return found


def record(out: Path, num_trajectories: int) -> int:
    """Record about so many trajectories, in whole leases.

    Returns:
        How many they were.
    """
    probe = load_task(load(None, {}))
    samples = -(-num_trajectories // len(probe.problems))
    config = load(None, {"direction": "reverse", "samples": samples, "out": str(out)})
    plan = prepare(config, probe)
    completed = finished_lease(plan.pair.tokenizer.encode(r"so \boxed{50}."))
    with Grader(plan.problems) as grader, RunStore.open(out, manifest_of(plan)) as store:
        recorder = Recorder(plan, store, grader, Silent())
        keys = recorder.missing()
        firsts = range(0, num_trajectories - LEASE + 1, LEASE)
        for first in firsts:
            lease = range(first, first + LEASE)
            recorder.add(Done(lease, completed), keys[first : first + LEASE])
            recorder.refresh()
        recorder.commit()
        recorder.finish()
    return len(firsts) * LEASE


def finished_lease(answer: Sequence[int]) -> Completed:
    """LEASE finished trajectories of TOKENS tokens, `answer` again and again."""
    rows = LEASE * TOKENS
    token = np.tile(np.resize(np.array(answer, np.int32), TOKENS), LEASE)
    zeros, ones = np.zeros(rows, np.float32), np.ones(rows, np.int32)
    side = pa.RecordBatch.from_pydict(
        {
            "sequence": np.repeat(np.arange(LEASE, dtype=np.int32), TOKENS),
            "position": np.tile(np.arange(TOKENS, dtype=np.int32), LEASE),
            "token": token,
            "intervened": np.zeros(rows, bool),
            "effective": np.zeros(rows, bool),
            "primary_token": pa.nulls(rows, pa.int32()),
            "js": zeros,
            "nucleus": ones,
            "top1": token,
            "entropy": zeros,
            "logp": zeros,
            "logp_of_other_top1": zeros,
            "rank": ones,
            "rank_of_other_top1": ones,
            "top_k": pa.array([[1, 2, 3]] * rows, pa.list_(pa.int32())),
        }
    )
    jobs = np.arange(LEASE)
    return Completed(jobs, np.ones(LEASE, bool), merge_sides(side, side), jobs)


if __name__ == "__main__":
    main()
