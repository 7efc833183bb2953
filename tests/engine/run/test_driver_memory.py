"""What the driver keeps of a long run, of which thousands of trajectories are recorded here.

There are no engines. How much memory a run takes, benchmarks/driver_memory measures.
"""

import gc
import weakref
from pathlib import Path

from benchmarks.driver_memory import LEASE, Silent, finished_lease
from engine.run.plan import prepare
from engine.run.recorder import Recorder
from engine.run.run_json import manifest_of
from engine.run.scheduler import Done
from engine.run.settings import load
from engine.store.run_store import RunStore
from evaluators.grading.grader import Grader
from evaluators.tasks.registry import load_task

NUM_LEASES = 100


def test_the_driver_keeps_no_row_of_what_it_has_committed(tmp_path: Path) -> None:
    config = load(None, {"direction": "reverse", "samples": NUM_LEASES, "out": str(tmp_path)})
    task = load_task(config)
    plan = prepare(config, task)
    answer = plan.pair.tokenizer.encode(r"so \boxed{50}.")
    handed_over = []
    with Grader(task.problems) as grader, RunStore.open(tmp_path, manifest_of(plan)) as store:
        recorder = Recorder(plan, store, grader, Silent())
        keys = recorder.missing()
        for first in range(0, LEASE * NUM_LEASES, LEASE):
            completed = finished_lease(answer)
            handed_over += [weakref.ref(completed.tokens), weakref.ref(completed.tokens["token"])]
            recorder.add(Done(range(first, first + LEASE), completed), keys[first : first + LEASE])
            recorder.refresh()
        del completed
        recorder.commit()
        gc.collect()
        assert not [rows for rows in handed_over if rows() is not None]
        recorder.finish()
    committed = RunStore.read(tmp_path)
    assert committed.responses(["tokens"]).num_rows == LEASE * NUM_LEASES
    assert committed.grades().num_rows == LEASE * NUM_LEASES
