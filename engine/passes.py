"""Passes over whole distributions, [B, V] on their device; what comes out is small.

On a GPU each is a kernel or two. On a CPU they go block by block of rows, so that what one operation writes is still in
the cache when the next one reads it, and count in NumPy: torch's sums and nonzero of truth values take several times
as long.

Dimensions: B rows, V vocabulary, T tokens a row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

# Numbers in a block on a CPU: 1 MB, what a core's own cache holds of the input beside what is made of it.
_BLOCK = 2**18


def entropy(log_p: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of log-probabilities [B, V]: [B], on the device."""
    # exp(-inf) * clamp(-inf) is 0, where exp(-inf) * -inf would be NaN.
    return -torch.cat([torch.linalg.vecdot(block.exp(), block.clamp(min=-1e4)) for _, block in _blocks(log_p)])


def num_greater(values: torch.Tensor, than: torch.Tensor) -> torch.Tensor:
    """How many of each row of `values` [B, V] are greater than each of its `than` [B, T]: [B, T], on the device."""
    if values.device.type != "cpu":
        return (values[:, None] > than[:, :, None]).sum(-1)
    bounds = than.numpy()
    found = np.empty(bounds.shape, np.int32)
    for first, block in _blocks(values):
        rows = slice(first, first + len(block))
        for t in range(bounds.shape[1]):
            greater = block.numpy() > bounds[rows, t, None]
            found[rows, t] = greater.view(np.uint8).sum(1, dtype=np.int32)
    return torch.from_numpy(found)


def at_least(values: torch.Tensor, bound: torch.Tensor | float) -> torch.Tensor:
    """Flat indices, ascending, of `values` [B, V] that are >= bound, a number or [B, 1]; on the device."""
    if values.device.type != "cpu":
        return (values >= bound).view(-1).nonzero().view(-1)
    found = []
    for first, block in _blocks(values):
        cut = bound[first : first + len(block)] if isinstance(bound, torch.Tensor) else bound
        found.append(np.flatnonzero((block >= cut).numpy()) + first * values.shape[-1])
    return torch.from_numpy(np.concatenate(found))


def _blocks(values: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """Blocks of rows, and the number of the first of each."""
    size = max(1, _BLOCK // values.shape[-1]) if values.device.type == "cpu" else len(values)
    first = 0
    for block in torch.split(values, size):
        yield first, block
        first += len(block)
