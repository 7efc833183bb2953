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
    """How one budget follows from its stem.

    spent:  rows up to the intervention that spends the budget, N if none does; after them the
            primary is alone shared: rows whose tokens are the stem's; at the next one the stem
            intervened and changed the token
    """

    spent: int
    shared: int


def branch(intervened: Bools, effective: Bools, budget: int) -> Branch:
    """The branch of `budget` off a stem whose rows [N] have these flags."""
    at = np.flatnonzero(intervened)
    num_rows = len(intervened)
    spent = num_rows if len(at) < budget else int(at[budget - 1]) + 1 if budget else 0
    lacking = np.flatnonzero(effective[spent:])
    return Branch(spent, spent + int(lacking[0]) if len(lacking) else num_rows)


def group_forks(keys: Iterable[Hashable | None]) -> list[list[int]]:
    """Group the indices of equal keys, in the order of their first; None equals nothing."""
    groups: dict[Hashable, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault((index,) if key is None else (key, None), []).append(index)
    return list(groups.values())
