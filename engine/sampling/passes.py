"""Passes over whole distributions [B, V] on the CPU, with small results.

A pass takes the rows in blocks, so that what one operation writes is still in the cache when the
next one reads it. On a CPU torch neither sums nor searches truth values: a sum of floats and
NumPy's search are several times as fast. `find_at_least` and `take_rows` know devices, too.

Dimensions: B rows, V vocabulary, T tokens a row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from engine.arrays import Ints

BLOCK = 2**18
"""Numbers of a block on a CPU.

They take 1 MB: as much of the input as a core's own cache holds beside the results.
"""


def entropy(log_p: torch.Tensor) -> torch.Tensor:
    """Entropy in nats [B] of log-probabilities [B, V]."""
    # p log p is NaN, where it should be 0, if log p is -inf.
    return -torch.cat([block.exp().mul_(block).nansum(-1) for _, block in _blocks(log_p)])


def num_greater(values: torch.Tensor, than: torch.Tensor) -> torch.Tensor:
    """Count the values of each row that are greater than each of its bounds.

    Args:
        values: Values [B, V].
        than: Bounds [B, T].

    Returns:
        Counts [B, T] in float32, which counts up to 2**24 exactly.
    """
    counts = torch.empty(than.shape)
    for first, block in _blocks(values):
        rows, greater = slice(first, first + len(block)), torch.empty(block.shape)
        for t in range(than.shape[1]):
            torch.gt(block, than[rows, t, None], out=greater)
            torch.sum(greater, -1, out=counts[rows, t])
    return counts


def find_at_least(
    values: torch.Tensor, bound: torch.Tensor | float
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Find the entries >= a bound, which are few, and bring them to the host.

    Args:
        values: Values [B, V].
        bound: One bound for all rows, or one per row [B, 1].

    Returns:
        The flat indices of these entries, ascending, and their values.
    """
    if values.device.type != "cpu":
        index = (values >= bound).view(-1).nonzero().view(-1)
        return index.cpu().numpy(), values.reshape(-1)[index].cpu().numpy()
    parts = []
    for first, block in _blocks(values):
        cut = (
            bound[first : first + len(block)].numpy() if isinstance(bound, torch.Tensor) else bound
        )
        parts.append(np.flatnonzero(block.numpy() >= cut) + first * values.shape[-1])
    flat = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return flat, values.numpy().reshape(-1)[flat]


def take_rows(values: torch.Tensor, rows: Ints) -> torch.Tensor:
    """Copies of some rows [I, V] of `values` [B, V], where these are."""
    index = torch.from_numpy(rows)
    if values.device.type != "cpu":
        index = values.new_empty(index.shape, dtype=torch.int64).copy_(index)
    return values[index]


def _blocks(values: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Blocks of rows, each with the index of its first row."""
    size = max(1, BLOCK // values.shape[-1])
    if len(values) <= size:
        yield 0, values
        return
    first = 0
    for block in torch.split(values, size):
        yield first, block
        first += len(block)
