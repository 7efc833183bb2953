"""Counter-based Gumbel noise: a pure function of (seed, problem, sample, position, token id).

There is no generator state, so a response does not depend on batch size, scheduling, sharding,
restarts or on which engine computes it; and two policies, two directions or two budgets see the
same noise (coupling). The direction and the budget are left out of the key on purpose.

Mixing is the finaliser of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators").

Dimensions: N entries.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from engine.arrays import Floats, Ints, UInts

# SplitMix64's increment (2**64 / golden ratio) and multipliers.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
POSITIONS = np.uint64(0x8A5CD789635D2DFF)
"""XORed into a key it gives the stream that chooses random positions, apart from the one that
chooses tokens. Any constant does.
"""


def stream_key(seed: int, problem: str, sample: int) -> int:
    """64-bit key of one sample's noise.

    The hash is a cryptographic one, so that no two problems share a stream by accident.
    """
    digest = blake2b(f"{seed}\0{problem}\0{sample}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _mix(x: UInts) -> UInts:
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def uniform(key: UInts, position: Ints, token: Ints) -> Floats:
    """Uniform numbers in the open interval (0, 1).

    Args:
        key: Noise key of each entry [N], or an array that broadcasts to it; so are the others.
        position: Position of each entry in its response.
        token: Token id of each entry.
    """
    state = _mix(key + position.astype(np.uint64) * _GOLDEN)
    bits = _mix(state + (token.astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    # 52 bits, not 53: with 53 the half is rounded away at the top, and the greatest hashes would
    # give 1.
    unit: Floats = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return unit


def gumbel(key: UInts, position: Ints, token: Ints) -> Floats:
    """Standard Gumbel noise [N] for the Gumbel-max trick.

    The argmax over tokens of log p + gumbel is a draw from p.

    Args:
        key: Noise key of each entry [N], or an array that broadcasts to it; so are the others.
        position: Position of each entry in its response.
        token: Token id of each entry.
    """
    noise: Floats = -np.log(-np.log(uniform(key, position, token)))
    return noise
