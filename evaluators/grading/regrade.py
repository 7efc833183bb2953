"""Grading a run directory again, from its responses and gold answers alone."""

from __future__ import annotations

from engine.core import GRADERS, TRAJECTORY_KEY, GraderName
from engine.errors import ConfigError, RunDirectoryError
from engine.store.run_store import RunStore
from evaluators.grading.grader import grade_responses


def regrade(
    store: RunStore,
    grader: GraderName | None = None,
    workers: int = 2,
    deadline_s: float = 10.0,
) -> GraderName:
    """Grade all responses of a run and replace its grades.

    Gold answers and the order of options are those that the run keeps, so the same grader gives the
    same grades.

    Args:
        store: The run directory.
        grader: How answers are compared; by default as in the run.
        workers: Processes that compare formulas.
        deadline_s: Seconds after which a comparison is given up.

    Returns:
        The grader that was used.

    Raises:
        RunDirectoryError: The run has no gold answers, or no responses yet.
        ConfigError: There is no such grader.
    """
    if grader is not None and grader not in GRADERS:
        raise ConfigError(f"grader is {grader!r}: give one of {', '.join(GRADERS)}")
    problems, grader = store.problems(), grader or store.grader
    if not problems:
        raise RunDirectoryError(
            f"run directory {store.path} holds no gold answers: score its responses again with"
            " --task"
        )
    parts = store.response_parts([*TRAJECTORY_KEY, "text"])
    grades = grade_responses(parts, problems, grader, workers, deadline_s)
    if not grades:
        raise RunDirectoryError(
            f"run directory {store.path} holds no responses yet: nothing to grade"
        )
    store.write_grades(grades)
    return grader
