"""The two passes of a device in torch's operations: the same functions as in `kernels`.

They run where Triton is not, and they are what the kernels are tested against.

Dimensions: B rows of the batch, R rows that are forced, V vocabulary.
"""

from __future__ import annotations

import torch

from engine.sampling import summary
from engine.sampling.distribution import FIRST_CUT


def summarise(
    logits: torch.Tensor, fed: torch.Tensor | None, vocab_size: int, temperature: float
) -> torch.Tensor:
    """The first pass, as `kernels.summarise`."""
    logits = logits[:, :vocab_size]
    best = logits.amax(-1)
    log_p = logits - best[:, None]
    log_mass = log_p.exp().sum(-1).log()
    log_p -= log_mass[:, None]
    packed = logits.new_empty((len(logits), summary.WIDTH), dtype=torch.int32)
    packed[:, summary.BEST] = best.view(torch.int32)
    packed[:, summary.LOG_MASS] = log_mass.view(torch.int32)
    # p log p is NaN, where it should be 0, if log p is -inf.
    packed[:, summary.ENTROPY] = (-log_p.exp().mul_(log_p).nansum(-1)).view(torch.int32)
    if fed is not None:
        packed[:, summary.PREVIOUS] = fed
    if temperature == 0:
        is_candidate = logits == best[:, None]
    else:
        log_p = (logits / temperature).log_softmax(-1)
        is_candidate = log_p >= FIRST_CUT
    number = is_candidate.cumsum(-1)
    packed[:, summary.COUNT] = number[:, -1].int()
    row, token = (is_candidate & (number <= summary.MAX_CANDIDATES)).nonzero().unbind(-1)
    slot = number[row, token] - 1
    packed[row, summary.TOKEN + slot] = token.int()
    packed[row, summary.LOG_P + slot] = log_p[row, token].view(torch.int32)
    return packed


def measure_and_force(
    logits: torch.Tensor, packed: torch.Tensor, plan: torch.Tensor, vocab_size: int
) -> torch.Tensor:
    """The second pass, as `kernels.measure_and_force`."""
    row, token, other = plan.long().view(-1, 3).unbind(-1)
    own = logits[:, :vocab_size].index_select(0, row)
    numbers = logits.new_empty((len(row), 5))
    numbers[:, 0] = packed[:, summary.ENTROPY].view(torch.float32)[row]
    best = packed[:, summary.BEST].view(torch.float32)[row]
    log_mass = packed[:, summary.LOG_MASS].view(torch.float32)[row]
    for column, chosen in ((1, token), (2, other.clamp(min=0))):
        x = own.gather(1, chosen[:, None])
        numbers[:, column] = x[:, 0] - best - log_mass
        numbers[:, column + 2] = (own > x).sum(-1) + 1
    logits.index_put_((row, token), logits.new_full((), torch.inf))
    return numbers
