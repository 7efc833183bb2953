"""From a plan to a finished run: what the command and the Python API share."""

from __future__ import annotations

from contextlib import nullcontext

from engine.run.execute import execute
from engine.run.plan import Plan
from engine.shard import WHOLE
from engine.store.run_store import RunStore
from engine.system.display import Display
from engine.system.log import show_log
from evaluators.grading.grader import Grader


def make(plan: Plan, display: Display) -> RunStore:
    """Make and grade the trajectories of a plan that are not made yet. A shard is not graded.

    Raises:
        XsampleError: As `engine.run.execute.execute` does.
    """
    is_graded = plan.problems and plan.shard == WHOLE
    grading = Grader(plan.problems, plan.grader) if is_graded else nullcontext()
    with grading as grader, show_log(display.note, plan.config.verbose):
        display.note(f"run directory: {plan.out}")
        return execute(plan, grader, display)
