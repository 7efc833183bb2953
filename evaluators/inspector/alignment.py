"""Where trajectories of one sample part from each other. Pure: token ids in, positions out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from engine.arrays import Ints
from engine.core import ALL_DIRECTIONS, Trajectory, budget_order


@dataclass(frozen=True, slots=True)
class Aligned:
    """A trajectory and the earlier one that it goes along with for longest.

    parts_from: that one; None where no earlier one starts with the same token num_shared: tokens
    that both start with, which is the position at which they part same:       both have the same
    tokens to the end folds:      what is shared need not be shown again; not so for the first of a
    direction, whose interventions there
                are others than those of the other direction
    """

    key: Trajectory
    parts_from: Trajectory | None = None
    num_shared: int = 0
    same: bool = False
    folds: bool = False


def align(tokens: Mapping[Trajectory, Sequence[int]]) -> list[Aligned]:
    """Trajectories in the order in which they are shown: forward, reverse, given; the largest
    budget first.

    Of earlier ones that share equally much, one that has no more tokens is taken before one of the
    same direction, and that before others; of these the first.
    """
    ids = {key: np.asarray(tokens[key], np.int64) for key in sorted(tokens, key=_place)}
    keys = list(ids)
    return [_nearest(key, keys[:place], ids) for place, key in enumerate(keys)]


def _place(key: Trajectory) -> tuple[int, float]:
    known = (
        ALL_DIRECTIONS.index(key.direction)
        if key.direction in ALL_DIRECTIONS
        else len(ALL_DIRECTIONS)
    )
    return known, -budget_order(key.budget)


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
    """What is more, in this order: tokens shared, no others, the same direction."""
    num_shared = _num_shared(ids[key], ids[other])
    return (
        num_shared,
        num_shared == len(ids[key]) == len(ids[other]),
        other.direction == key.direction,
    )


def _num_shared(one: Ints, other: Ints) -> int:
    """Length of the longest common prefix."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
