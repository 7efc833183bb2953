"""How many tokens two top-k lists share, for every k at once.

NumPy on Arrow lists; no tables and no SQL, in which this would be a loop over the lists of every
row. Here a column of one list is compared with a column of the other, for all rows at once.

Dimensions: B rows of a batch, R selected rows, K tokens of the longest list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from engine.arrays import Ints


class Overlap(NamedTuple):
    """Sums over positions, for k = 1..K."""

    shared: Ints
    """Number of tokens that the first k of both lists share, over all positions [K]."""
    positions: Ints
    """Number of positions at which both lists have k tokens [K]."""


NO_OVERLAP = Overlap(np.zeros(0, np.int64), np.zeros(0, np.int64))


def count_overlap(base: pa.ListArray, rl: pa.ListArray, rows: Ints) -> Overlap:
    """Count the shared tokens of the lists at some rows.

    Args:
        base: Token ids of the base policy, best first [B]; lists may differ in length.
        rl: Those of the RL policy [B].
        rows: Indices of the rows that count [R]; their lists are not null.
    """
    starts = [lists.offsets.to_numpy()[rows] for lists in (base, rl)]
    stops = [lists.offsets.to_numpy()[rows + 1] for lists in (base, rl)]
    tokens = [_tokens(lists, missing) for lists, missing in ((base, -1), (rl, -2))]
    lengths = np.minimum(*(stop - start for start, stop in zip(starts, stops, strict=True)))
    total = NO_OVERLAP
    for length in np.unique(lengths[lengths > 0]).tolist():
        same_length = lengths == length
        columns = [
            [ids[start[same_length] + k] for k in range(length)]
            for ids, start in zip(tokens, starts, strict=True)
        ]
        num_positions = np.full(length, np.count_nonzero(same_length))
        total = add(total, Overlap(_shared(*columns), num_positions))
    return total


def add(first: Overlap, second: Overlap) -> Overlap:
    """The sum of both; at a k beyond its length, a count adds nothing."""
    length = max(len(first.shared), len(second.shared))
    padded = (
        [np.pad(sums, (0, length - len(sums))) for sums in overlap] for overlap in (first, second)
    )
    return Overlap(*(a + b for a, b in zip(*padded, strict=True)))


def _shared(base: list[NDArray[np.int32]], rl: list[NDArray[np.int32]]) -> Ints:
    """Tokens that the first k of both lists share, summed over rows, for k = 1..K.

    A token at index i of one list and j of the other is shared from k = max(i, j) + 1 on.
    """
    first_shared = np.zeros(len(base), np.int64)
    for i, base_tokens in enumerate(base):
        for j, rl_tokens in enumerate(rl):
            first_shared[max(i, j)] += np.count_nonzero(base_tokens == rl_tokens)
    return np.cumsum(first_shared)


def _tokens(lists: pa.ListArray, missing: int) -> NDArray[np.int32]:
    """All ids of the lists; `missing` for null, which must equal no id of the other side."""
    return np.asarray(pc.fill_null(lists.values, pa.scalar(missing, lists.values.type)).to_numpy())
