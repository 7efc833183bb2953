"""The summary of a run directory: computed, stored, and checked for missing trajectories."""

from __future__ import annotations

from typing import Any

from engine.core import TRAJECTORY_KEY, GraderName
from engine.errors import GivenUpError, IncompleteRunError
from engine.store.run_store import RunStore
from evaluators.scores.divergence import measure_divergence
from evaluators.scores.outcomes import COUNTED
from evaluators.scores.summary import summarise, summarise_ungraded


def summarise_run(store: RunStore, grader: GraderName | None) -> dict[str, Any]:
    """Compute the numbers of a run and write them to its summary.json.

    Args:
        store: The run directory, with grades if there is a grader.
        grader: How answers were compared; None where no gold answer is known.

    Returns:
        The summary of `summarise`, with `measured`, the rows of `measure_divergence`, and
        `total["missing"]`, the number of missing trajectories.
    """
    responses = store.responses([*TRAJECTORY_KEY, *COUNTED])
    if grader:
        summary = summarise(responses, store.grades(), grader)
    else:
        summary = summarise_ungraded(responses)
    summary["measured"] = measure_divergence(store.tokens())
    summary["total"]["missing"] = max(0, store.num_expected - summary["total"]["responses"])
    store.write_summary(summary)
    return summary


def check_complete(store: RunStore, summary: dict[str, Any]) -> None:
    """Refuse a run that misses trajectories.

    Args:
        store: The run directory.
        summary: What `summarise_run` returned for it.

    Raises:
        GivenUpError: Every missing trajectory was given up after repeated failures.
        IncompleteRunError: Some missing trajectory can still be sampled.
    """
    missing = summary["total"]["missing"]
    if not missing:
        return
    failures, given_up = store.failures(), ""
    if failures:
        given_up = f", {len(failures)} of them given up after {failures[0].attempts} failures"
    kind = GivenUpError if len(failures) == missing else IncompleteRunError
    raise kind(
        f"{missing} of {store.num_expected} trajectories are missing{given_up}, and these numbers"
        " are of the rest alone (short responses finish first): the same command with --out"
        f" {store.path} makes them"
    )
