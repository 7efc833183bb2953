"""How many tokens two top-k lists share, for every k at once. NumPy on Arrow lists; knows no
tables.

Compared in NumPy, column against column: in SQL it would be a loop over the lists of every row.

Dimensions: B rows of a batch, R rows that are looked at, K tokens of the longest list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.arrays import Ints


class Overlap(NamedTuple):
    """Sums over positions, [K] each: tokens that the k first of both lists share, and positions
    with k in both.
    """

    shared: Ints
    positions: Ints


NOTHING = Overlap(np.zeros(0, np.int64), np.zeros(0, np.int64))


def count_overlap(base: pa.ListArray, rl: pa.ListArray, rows: Ints) -> Overlap:
    """The sums over the lists [B] at `rows` [R], none of them null; lists may differ in length."""
    starts = [lists.offsets.to_numpy()[rows] for lists in (base, rl)]
    stops = [lists.offsets.to_numpy()[rows + 1] for lists in (base, rl)]
    tokens = [_tokens(lists, missing) for lists, missing in ((base, -1), (rl, -2))]
    lengths = np.minimum(*(stop - start for start, stop in zip(starts, stops, strict=True)))
    found = NOTHING
    for length in np.unique(lengths[lengths > 0]).tolist():
        here = lengths == length
        columns = [
            [ids[start[here] + k] for k in range(length)]
            for ids, start in zip(tokens, starts, strict=True)
        ]
        found = add(found, Overlap(_shared(*columns), np.full(length, np.count_nonzero(here))))
    return found


def add(one: Overlap, other: Overlap) -> Overlap:
    """Both sums together; the shorter one has seen nothing at larger k."""
    length = max(len(one.shared), len(other.shared))
    padded = (
        [np.pad(sums, (0, length - len(sums))) for sums in overlap] for overlap in (one, other)
    )
    return Overlap(*(a + b for a, b in zip(*padded, strict=True)))


def _shared(base: list[NDArray[np.int32]], rl: list[NDArray[np.int32]]) -> Ints:
    """Tokens shared by the k first, summed over rows. One at i in one list and j in the other is
    from k > i, j on.
    """
    at = np.zeros(len(base), np.int64)
    for i, ours in enumerate(base):
        for j, theirs in enumerate(rl):
            at[max(i, j)] += np.count_nonzero(ours == theirs)
    return np.cumsum(at)


def _tokens(lists: pa.ListArray, missing: int) -> NDArray[np.int32]:
    """All ids of the lists; one that is null equals none of the other side."""
    return np.asarray(pc.fill_null(lists.values, pa.scalar(missing, lists.values.type)).to_numpy())
