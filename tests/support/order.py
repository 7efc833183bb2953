"""Which tests go to which of the processes that share them, and in what order.

Whoever comes for work next gets the next file, so the longest come first. Only those that take the
kept pair of engines stay together, since each process would start a pair of its own.
"""

from __future__ import annotations

# In this order: what needs other engines comes last, and what kills the kept pair at the very end.
_ON_THE_KEPT_PAIR = (
    "engine/lockstep/test_exact.py", "engine/lockstep/test_interventions.py",
    "engine/lockstep/test_measuring.py", "engine/run/test_recorded_tokens.py",
    "engine/lockstep/test_network.py", "engine/run/test_score_run.py",
    "evaluators/tasks/test_task_run.py", "xsample/test_api.py", "xsample/test_demo.py",
    "project/test_pages.py", "engine/lockstep/test_invariant.py", "v2/test_model_runner_v2.py",
    "engine/lockstep/test_failure.py",
)  # fmt: skip
_LONGEST_OF_THE_OTHERS = (
    "engine/lockstep/test_switch.py", "project/test_slurm.py", "engine/run/test_resume.py",
    "engine/run/test_chaos.py", "project/test_notebook.py", "engine/run/test_nodes.py",
    "engine/sampling/test_sampler.py", "recipes/", "evaluators/grading/",
    "project/test_hostile.py",
)  # fmt: skip
_FIRST = (*_ON_THE_KEPT_PAIR, *_LONGEST_OF_THE_OTHERS)


def place(nodeid: str) -> int:
    """Where a test comes in the order of all."""
    starts = [number for number, file in enumerate(_FIRST) if _file(nodeid).startswith(file)]
    return min(starts, default=len(_FIRST))


def scope(nodeid: str) -> str:
    """What goes to one process as a whole: all tests of the kept pair, or a file."""
    file = _file(nodeid)
    return "engines" if file in _ON_THE_KEPT_PAIR else file


def _file(nodeid: str) -> str:
    """From the folder of the tests on."""
    return nodeid.partition("::")[0].removeprefix("tests/")
