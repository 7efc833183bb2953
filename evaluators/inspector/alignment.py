"""Where the trajectories of one sample part from each other.

Pure functions: token ids in, positions out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.arrays import Ints
from engine.core import ALL_DIRECTIONS, Trajectory, budget_order


@dataclass(frozen=True, slots=True)
class Aligned:
    """A trajectory and the earlier trajectory with which it shares the longest prefix."""

    key: Trajectory
    parts_from: Trajectory | None = None
    """The earlier trajectory; None where none starts with the same token."""
    num_shared: int = 0
    """Number of shared tokens, which is the position at which the two part."""
    same: bool = False
    """Whether both have the same tokens to the end."""
    folds: bool = False
    """Whether the shared tokens need not be shown again.

    False for the first trajectory of a direction: its interventions on these tokens are not those
    of the other direction.
    """


def align(tokens: Mapping[Trajectory, Sequence[int]]) -> list[Aligned]:
    """Align each trajectory with the earlier one that shares the longest prefix.

    Among equally long prefixes, a trajectory that is the same to the end comes before one of the
    same direction, and that before the others; of these the first is taken.

    Args:
        tokens: The token ids of each trajectory.

    Returns:
        The trajectories in the order in which they are shown: forward, reverse, given, and of each
        direction the largest budget first.
    """
    ids = {key: np.asarray(tokens[key], np.int64) for key in sorted(tokens, key=_sort_key)}
    keys = list(ids)
    return [_nearest(key, keys[:index], ids) for index, key in enumerate(keys)]


def _sort_key(key: Trajectory) -> tuple[int, float]:
    is_known = key.direction in ALL_DIRECTIONS
    direction = ALL_DIRECTIONS.index(key.direction) if is_known else len(ALL_DIRECTIONS)
    return direction, -budget_order(key.budget)


def _nearest(
    key: Trajectory, earlier: Sequence[Trajectory], ids: Mapping[Trajectory, Ints]
) -> Aligned:
    if not earlier:
        return Aligned(key)
    near = {other: _nearness(key, other, ids) for other in earlier}
    nearest = max(near, key=lambda other: near[other])
    num_shared, same, _ = near[nearest]
    if not num_shared and not same:
        return Aligned(key)
    return Aligned(
        key, nearest, num_shared, same, any(other.direction == key.direction for other in earlier)
    )


def _nearness(
    key: Trajectory, other: Trajectory, ids: Mapping[Trajectory, Ints]
) -> tuple[int, bool, bool]:
    """The key by which the nearest is the largest: shared tokens, same to the end, direction."""
    num_shared = _num_shared(ids[key], ids[other])
    return (
        num_shared,
        num_shared == len(ids[key]) == len(ids[other]),
        other.direction == key.direction,
    )


def _num_shared(first: Ints, second: Ints) -> int:
    """The length of the longest common prefix."""
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    return int(differing[0]) if len(differing) else length
