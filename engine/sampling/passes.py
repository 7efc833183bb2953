"""Passes over whole distributions, [B, V] on their device; what comes out is small.

On a GPU each is a kernel or two. On a CPU they go block by block of rows, so that what one
operation writes is still in the cache when the next one reads it, and truth values are not summed
or searched by torch, which takes several times as long as a sum of floats or NumPy's search.

Dimensions: B rows, V vocabulary, T tokens a row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from engine.arrays import Ints

# Numbers in a block on a CPU: 1 MB, what a core's own cache holds of the input beside what is made
# of it.
BLOCK = 2**18


def entropy(log_p: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of log-probabilities [B, V]: [B], on the device."""
    # p log p is NaN, where it should be 0, if log p is -inf.
    return -torch.cat([block.exp().mul_(block).nansum(-1) for _, block in _blocks(log_p)])


def num_greater(values: torch.Tensor, than: torch.Tensor) -> torch.Tensor:
    """How many of each row of `values` [B, V] are greater than each of its `than` [B, T]: [B, T],
    on the device.

    On a CPU float32, which counts up to 2**24 exactly.
    """
    if values.device.type != "cpu":
        return (values[:, None] > than[:, :, None]).sum(-1)
    found = torch.empty(than.shape)
    for first, block in _blocks(values):
        rows, greater = slice(first, first + len(block)), torch.empty(block.shape)
        for t in range(than.shape[1]):
            torch.gt(block, than[rows, t, None], out=greater)
            torch.sum(greater, -1, out=found[rows, t])
    return found


def at_least(
    values: torch.Tensor, bound: torch.Tensor | float
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """Those of `values` [B, V] that are >= bound, a number or [B, 1]: their flat indices,
    ascending, and they; on the host.
    """
    if values.device.type != "cpu":
        where = (values >= bound).view(-1).nonzero().view(-1)
        return where.cpu().numpy(), values.reshape(-1)[where].cpu().numpy()
    found = []
    for first, block in _blocks(values):
        cut = (
            bound[first : first + len(block)].numpy() if isinstance(bound, torch.Tensor) else bound
        )
        found.append(np.flatnonzero(block.numpy() >= cut) + first * values.shape[-1])
    flat = np.concatenate(found) if len(found) > 1 else found[0]
    return flat, values.numpy().reshape(-1)[flat]


def put(values: torch.Tensor, row: Ints, token: Ints, number: float) -> None:
    """Write `number` to each (row, token) of `values` [B, V], in place."""
    if values.device.type == "cpu":
        values.numpy()[row, token] = number
    else:
        where = torch.from_numpy(np.array((row, token))).to(values.device)
        values[where[0], where[1]] = number


def _blocks(values: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Blocks of rows, and the number of the first of each."""
    size = max(1, BLOCK // values.shape[-1]) if values.device.type == "cpu" else len(values)
    if len(values) <= size:
        yield 0, values
        return
    first = 0
    for block in torch.split(values, size):
        yield first, block
        first += len(block)
