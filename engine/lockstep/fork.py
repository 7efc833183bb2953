"""Forks: trajectories that differ in their budget only, out of one that was made with the largest.

With coupled noise a smaller budget gives the same tokens until it lacks an intervention that
changed the token: an intervention that did not change it is what the primary would have done
anyway. From there the primary goes on alone. So every budget shares a prefix of the stem, and
budgets that lack no effective intervention share all of it.

Dimensions: N rows (positions) of a stem.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np

from engine.arrays import Bools


class Branch(NamedTuple):
    """How the trajectory of one budget follows from its stem."""

    spent: int
    """Rows up to the intervention that spends the budget; N if none does.

    After them the primary is alone.
    """
    shared: int
    """Rows whose tokens are the stem's. At the next one the stem changed the token."""


def branch(intervened: Bools, effective: Bools, budget: int) -> Branch:
    """The branch of a budget off its stem.

    Args:
        intervened: Whether the stem intervened at each row [N].
        effective: Whether that changed the token [N].
        budget: Interventions that the branch may have at most.
    """
    positions = np.flatnonzero(intervened)
    num_rows = len(intervened)
    if budget == 0:
        spent = 0
    else:
        spent = num_rows if len(positions) < budget else int(positions[budget - 1]) + 1
    lacking = np.flatnonzero(effective[spent:])
    return Branch(spent, spent + int(lacking[0]) if len(lacking) else num_rows)


def group_forks(keys: Iterable[Hashable | None]) -> list[list[int]]:
    """Group the indices of equal keys, in the order of their first ones; None equals nothing."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault((index,) if key is None else (key, None), []).append(index)
    return list(groups.values())
