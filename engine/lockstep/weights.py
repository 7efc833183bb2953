"""What tells the weights of one engine from those of another: taken off the device, not off a name.

A fingerprint has two parts. Sums of the bits of all tensors of the model say which weights lie
on the device. Some kernels keep copies of their own that no tensor shows (oneDNN on the CPU packs
them), so the logits of a fixed prompt, and of a few tokens after it, say which weights the engine
computes with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import torch

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by their bytes
# Sums of so many numbers leave the device; a few MB for the largest models.
_BLOCK = 1 << 16
_BLOCKS_AT_ONCE = 1 << 8
_PROBE_TOKENS = 16
PROBE_STEPS = 4
"""Steps whose logits belong to a fingerprint: that of the prompt, and steps that decode, which have
kernels of their own.
"""


def probe_prompt(vocab_size: int, max_tokens: int) -> list[int]:
    """The prompt whose logits belong to a fingerprint: token ids from all over the vocabulary."""
    return [int(token) for token in np.linspace(0, vocab_size - 1, min(_PROBE_TOKENS, max_tokens))]


def digest_of_model(model: torch.nn.Module) -> str:
    """A hash of every parameter and buffer of a model, by name."""
    return digest_of_tensors(chain(model.named_parameters(), model.named_buffers()))


def digest_of_tensors(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    """A hash of tensors on any device; only sums of their bits leave it.

    Args:
        tensors: (name, tensor) of each, in any order.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(tensors, key=lambda named: named[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        for sums in _sums(tensor.detach()):
            digest.update(sums.cpu().numpy().tobytes())
    return digest.hexdigest()


def _sums(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """The sums of the bits of each block, taken as integers, modulo 2^64."""
    if not tensor.is_contiguous() and tensor.ndim > 1:
        tensor = tensor.transpose(-1, -2)  # weights of quantised layers; a copy would take memory
    integers = _INTEGERS.get(tensor.element_size(), torch.int64)
    bits = tensor.contiguous().reshape(-1).view(integers)
    whole = bits[: len(bits) // _BLOCK * _BLOCK].view(-1, _BLOCK)
    starts = range(0, len(whole), _BLOCKS_AT_ONCE)
    sums = [whole[at : at + _BLOCKS_AT_ONCE].sum(1, dtype=torch.int64) for at in starts]
    return [*sums, bits[whole.numel() :].sum(dtype=torch.int64)]
