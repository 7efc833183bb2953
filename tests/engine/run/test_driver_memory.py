"""The driver's memory over a long run: 100,000 trajectories through record, store and grader,
without engines.
"""

from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from engine.lockstep.lease_runner import Completed
from engine.lockstep.merge import merge_sides
from engine.run.plan import prepare
from engine.run.recorder import Recorder
from engine.run.run_json import manifest_of
from engine.run.scheduler import Done
from engine.run.settings import load
from engine.store.run_store import RunStore
from engine.system.display import Display
from evaluators.grading.grader import Grader
from evaluators.tasks.registry import load_task

TRAJECTORIES, LEASE, TOKENS = 100_000, 64, 16


class Silent(Display):
    def stage(self, text: str) -> None: ...

    def update(self, snapshot: object) -> None: ...

    def note(self, text: str) -> None: ...

    def __exit__(self, *exception: object) -> None: ...


def finished_lease(answer: list[int]) -> Completed:
    """64 finished trajectories of 16 tokens, as a pair hands them over."""
    rows = LEASE * TOKENS
    token = np.resize(np.array(answer, np.int32), TOKENS)
    side = pa.RecordBatch.from_pydict(
        {
            "sequence": np.repeat(np.arange(LEASE, dtype=np.int32), TOKENS),
            "position": np.tile(np.arange(TOKENS, dtype=np.int32), LEASE),
            "token": np.tile(token, LEASE),
            "intervened": np.zeros(rows, bool),
            "effective": np.zeros(rows, bool),
            "primary_token": pa.nulls(rows, pa.int32()),
            "js": np.zeros(rows, np.float32),
            "nucleus": np.ones(rows, np.int32),
            "top1": np.tile(token, LEASE),
            **{
                name: np.zeros(rows, np.float32)
                for name in ("entropy", "logp", "logp_of_other_top1")
            },
            **{name: np.ones(rows, np.int32) for name in ("rank", "rank_of_other_top1")},
            "top_k": pa.array([[1, 2, 3]] * rows, pa.list_(pa.int32())),
        }
    )
    return Completed(
        np.arange(LEASE), np.ones(LEASE, bool), merge_sides(side, side), np.arange(LEASE)
    )


def test_the_drivers_memory_stays_flat_over_a_hundred_thousand_trajectories(tmp_path: Path) -> None:
    task = load_task(load(None, {}))
    plan = prepare(
        load(None, {"direction": "reverse", "samples": TRAJECTORIES // 200, "out": str(tmp_path)}),
        task,
    )
    completed = finished_lease(plan.pair.tokenizer.encode(r"so \boxed{50}."))
    process, resident = psutil.Process(), []
    with Grader(task.problems) as grader, RunStore.open(tmp_path, manifest_of(plan)) as store:
        recorder = Recorder(plan, store, grader, Silent())
        keys = recorder.missing()
        assert len(keys) == TRAJECTORIES
        for first in range(0, TRAJECTORIES - LEASE + 1, LEASE):
            recorder.add(Done(range(first, first + LEASE), completed), keys[first : first + LEASE])
            recorder.refresh()
            if first % (LEASE * 100) == 0:
                resident.append(process.memory_info().rss)
        recorder.commit()
        recorder.finish()
    assert RunStore.read(tmp_path).responses(["tokens"]).num_rows == TRAJECTORIES // LEASE * LEASE
    # What may grow is one verdict a trajectory, kept to be written at the end; never a token.
    growth = (resident[-1] - resident[len(resident) // 10]) / 2**20
    assert growth < 60, f"{growth:.0f} MiB more after {TRAJECTORIES} trajectories"
    print(f"driver grew by {growth:.0f} MiB")
