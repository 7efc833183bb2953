"""The sections of a run.json, and the digests that identify a run.

A run.json is read with care: a user may have edited it, or an older version may have written it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import RunDirectoryError

MAX_TRAJECTORIES = 10_000_000
"""Of one run: a number in run.json must not take all memory."""


def section(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object of run.json; empty if it is missing or is no object."""
    value = manifest.get(name)
    return value if isinstance(value, dict) else {}


def is_scored(manifest: Mapping[str, Any]) -> bool:
    """Whether the responses come from elsewhere and `xsample score` measured them."""
    return "responses" in section(manifest, "identity")


def is_gated(manifest: Mapping[str, Any]) -> bool:
    """Whether the text of the problems must not be published; true if run.json does not say."""
    return section(manifest, "task").get("gated") is not False


def expected_section(manifest: Mapping[str, Any], run: Path) -> dict[str, Any]:
    """The section `expected`, as `engine.store.schema.expected_trajectories` takes it.

    Args:
        manifest: The run.json.
        run: The run directory, for the error.

    Raises:
        RunDirectoryError: The section is missing, malformed, or asks for too many trajectories.
    """
    expected = section(manifest, "expected")
    if _is_list(expected) or _is_product(expected):
        return expected
    raise RunDirectoryError(
        f"{run}/run.json does not say which trajectories the run has (expected is"
        f" {expected!r:.60}): put back the run.json that it was made with"
    )


def _is_list(expected: dict[str, Any]) -> bool:
    """Whether `expected` lists its trajectories one by one."""
    keys = expected.get("trajectories")
    return isinstance(keys, list) and all(
        isinstance(key, list) and len(key) == 4 and _is_key(*key) for key in keys
    )


def _is_product(expected: dict[str, Any]) -> bool:
    """Whether `expected` gives problems, samples, directions and budgets, all to be combined."""
    samples: Any = expected.get("samples")
    lists: list[Any] = [expected.get(name) for name in ("problems", "directions", "budgets")]
    if (
        "trajectories" in expected
        or type(samples) is not int
        or not all(isinstance(values, list) for values in lists)
    ):
        return False
    problems, directions, budgets = lists
    keys = [*((name, "", None) for name in problems), *(("", name, None) for name in directions)]
    keys += [("", "", budget) for budget in budgets]
    num_keys = samples * len(problems) * len(directions) * len(budgets)
    return 0 <= num_keys <= MAX_TRAJECTORIES and all(
        _is_key(name, 0, *of_arm) for name, *of_arm in keys
    )


def _is_key(problem: object, sample: object, direction: object, budget: object) -> bool:
    are_texts = isinstance(problem, str) and isinstance(direction, str)
    return are_texts and type(sample) is int and (budget is None or type(budget) is int)


def digest_rows(rows: Iterable[tuple[Any, ...]]) -> str:
    """A digest of rows of JSON values, whatever their order: 16 hexadecimal digits."""
    return _digits(sorted(rows))


def digest_object(value: Mapping[str, Any]) -> str:
    """A digest of a JSON object, whatever the order of its keys: 16 hexadecimal digits."""
    return _digits(value)


def _digits(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
