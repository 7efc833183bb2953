"""Made-up rows of record.TOKENS that agree with each other as measured ones do: a model of what two
policies say.

Three tokens are looked at in each position: the top-1 of base, the top-1 of rl (mostly the same
one), and a third. Most positions are settled: both nuclei are the same single token, JS is exactly
0, and the text goes on with a phrase that it has used before. In the others (`split`) JS is
lognormal, and grows with the entropies and with how often the top-1 differ. Log-probabilities of a
top-1 are -log(sum) in float32 as in a softmax, so that values repeat where a policy is sure, as
real ones do.

Dimensions: N positions, S split ones, H of high divergence, K listed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from engine.arrays import Bools, Floats, Ints

Generator = np.random.Generator
Columns = dict[str, Any]

VOCABULARY_SIZE, EOS = 150_000, 149_999
TOP_P, THRESHOLD, TOP_K = 0.7, 0.1, 10
POLICIES = ("base", "rl")
_MAX_RARE = 1 - TOP_P  # mass beside the top-1 with which that is the whole nucleus
_STRIDE = 977  # between listed tokens


@dataclass(frozen=True, slots=True)
class Policy:
    """What one policy says of S split positions: mass `rare` beside its top-1, nucleus size, and of
    the tokens (top-1 of base, top-1 of rl, third) probability and rank, [3, S] each.
    """

    rare: Floats
    nucleus: Ints
    p: Floats
    rank: Ints


def token_columns(rng: Generator, relative: Floats, last: Bools, forward: Bools) -> Columns:
    """The columns of record.TOKENS from `token` on, of N positions.

    relative [N]: position / length; last [N]: an EOS ends the response here; forward [N]: base is
    primary.
    """
    at_edges = 0.75 + 1.5 * np.exp(-25 * relative) + 0.3 * np.exp(25 * (relative - 1))
    is_split = (rng.random(len(relative)) < 0.33 * at_edges) & ~last
    columns = _settled(rng, np.where(last, EOS, _phrases(rng, is_split | (relative == 0))))
    split = np.flatnonzero(is_split)
    for name, values in _split(rng, forward[split]).items():
        if isinstance(values, pa.Array):
            columns[name] = _spread_lists(values, split, len(relative))
        else:
            columns[name][split] = values
    columns["primary_token"] = pa.array(columns["primary_token"], mask=~columns["intervened"])
    return columns


def zipf(rng: Generator, size: int) -> Ints:
    """Token ids in which id i has a share of about 1 / i, [size]; ids of a byte-pair vocabulary
    fall like that.
    """
    ids: Ints = np.exp(rng.random(size) * np.log(EOS)).astype(np.int64) - 1
    return ids


@cache
def _text() -> Ints:
    """What settled positions go on with: the same 65,536 tokens for every run."""
    return zipf(np.random.default_rng(0), 1 << 16)


def _phrases(rng: Generator, begins: Bools) -> Ints:
    """Token ids [N] that read on in one text from a new place wherever a phrase begins [N].

    Real text repeats its phrases, or columns of ids would take twice the space that they take on
    disk.
    """
    text, row = _text(), np.arange(len(begins))
    begin = np.maximum.accumulate(np.where(begins, row, 0))
    place = np.exp(rng.random(len(begins)) * np.log(len(text))).astype(np.int64)
    ids: Ints = text[(place[begin] + row - begin) % len(text)]
    return ids


def _settled(rng: Generator, token: Ints) -> Columns:
    """Columns of positions where both policies are sure of the same token, [N]."""
    size = len(token)
    one, no = np.ones(size, np.int32), np.zeros(size, np.bool_)
    columns: Columns = {"token": token.astype(np.int32), "primary_token": token.astype(np.int32)}
    columns |= {"intervened": no, "effective": no.copy(), "js": np.zeros(size, np.float32)}
    sureness = 1 - rng.random(size)
    for policy, shift in zip(POLICIES, (0.0, 0.1), strict=True):
        rare = _MAX_RARE * sureness ** (12 * np.exp(shift + 0.1 * rng.standard_normal(size)))
        logp = _log_of_top1(rare)
        columns |= {f"entropy_{policy}": _entropy(rng, rare), f"logp_{policy}": logp}
        columns |= {f"logp_{policy}_of_top1_{_other(policy)}": logp.copy()}
        columns |= {f"top1_{policy}": token.astype(np.int32), f"nucleus_{policy}": one.copy()}
        columns |= {
            f"rank_{policy}": one.copy(),
            f"rank_{policy}_of_top1_{_other(policy)}": one.copy(),
        }
    return columns


def _split(rng: Generator, forward: Bools) -> Columns:
    """Columns of positions whose nuclei are not one and the same token, [S]; lists [H] with null
    between.
    """
    size = len(forward)
    js = np.minimum(10 ** (0.84 * rng.standard_normal(size) - 1.87), np.log(2)).astype(np.float32)
    differ = (rng.random(size) < 1 - np.exp(-js / 0.15)) | (js >= np.float32(np.log(2)))
    ids = _three_tokens(rng, differ)
    rare_base = _MAX_RARE + 0.6 * rng.random(size)
    rare_rl = _MAX_RARE + (rare_base - _MAX_RARE) * rng.random(size) ** (3 * js)
    rare_rl *= np.where((js > 0.05) & (rng.random(size) < 0.5), 0.3, 1)  # rl is sure of one
    base, rl = _policy(rng, rare_base, differ, 0), _policy(rng, rare_rl, differ, 1)

    intervened, noise = js > THRESHOLD, rng.random((2, size))
    by_base, by_rl = _draw(noise, base, differ, 0), _draw(noise, rl, differ, 1)
    primary = np.where(forward, by_base, by_rl)
    taken = np.where(intervened, np.where(forward, by_rl, by_base), primary)
    at = np.arange(size)
    columns: Columns = {"token": ids[taken, at], "primary_token": ids[primary, at], "js": js}
    columns |= {
        "intervened": intervened,
        "effective": intervened & (ids[taken, at] != ids[primary, at]),
    }
    high = js >= THRESHOLD
    for own, (name, policy) in enumerate(zip(POLICIES, (base, rl), strict=True)):
        logp = np.log(policy.p).astype(np.float32)
        logp[own] = _log_of_top1(policy.rare)
        logp[1 - own] = np.where(differ, logp[1 - own], logp[own])
        columns |= {
            f"entropy_{name}": _entropy(rng, policy.rare),
            f"nucleus_{name}": policy.nucleus,
        }
        columns |= {
            f"top1_{name}": ids[own],
            f"logp_{name}": logp[taken, at],
            f"rank_{name}": policy.rank[taken, at],
        }
        columns[f"logp_{name}_of_top1_{_other(name)}"] = logp[1 - own]
        columns[f"rank_{name}_of_top1_{_other(name)}"] = policy.rank[1 - own]
        columns[f"topk_{name}"] = _lists(ids, policy.rank, own, high)
    return columns


def _three_tokens(rng: Generator, differ: Bools) -> Ints:
    """Ids of base's top-1, of rl's (another where they differ) and of a third token, [3, S]."""
    base, rl, third = (zipf(rng, len(differ)) for _ in range(3))
    rl = np.where(differ, np.where(rl == base, (rl + 1) % EOS, rl), base)
    for _ in range(2):
        third = np.where((third == base) | (third == rl), (third + 1) % EOS, third)
    return np.stack((base, rl, third))


def _policy(rng: Generator, rare: Floats, differ: Bools, own: int) -> Policy:
    """Probabilities that fall from the own top-1 over the other's to the third; a rank down is at
    most as probable.
    """
    size = len(rare)
    behind = np.where(differ, rng.geometric(0.6, size), 0)
    further = rng.geometric(0.7, size)
    p_own, bound = 1 - rare, np.minimum(rare, 1 - rare)
    p_other = np.where(
        differ, bound * (0.3 + 0.7 * rng.random(size)) * 0.35 ** (behind - 1.0), p_own
    )
    p_third = (
        np.where(differ, p_other, bound) * (0.3 + 0.6 * rng.random(size)) * 0.35 ** (further - 1.0)
    )
    p, rank = np.empty((3, size)), np.empty((3, size), np.int64)
    p[[own, 1 - own, 2]] = p_own, p_other, p_third
    rank[[own, 1 - own, 2]] = np.ones(size), 1 + behind, 1 + behind + further
    spread = 2 + rng.exponential(8 * np.maximum(rare - _MAX_RARE, 0)).astype(np.int64)
    return Policy(rare, np.where(rare > _MAX_RARE, spread, 1), p, rank)


def _draw(noise: Floats, policy: Policy, differ: Bools, own: int) -> Ints:
    """Which of the three tokens the policy takes with this noise [2, S]; only what its nucleus
    holds.
    """
    inside = policy.rank <= policy.nucleus
    other = np.where(
        inside[1 - own] & differ & (noise[1] < 0.6), 1 - own, np.where(inside[2], 2, own)
    )
    return np.where(noise[0] < (1 - policy.rare) / TOP_P, own, other)


def _log_of_top1(rare: Floats) -> npt.NDArray[np.float32]:
    """log(1 - rare) as a float32 log-softmax computes it."""
    return -np.log((1 / (1 - rare)).astype(np.float32))


def _entropy(rng: Generator, rare: Floats) -> npt.NDArray[np.float32]:
    """Nats of a distribution with 1 - rare on its top-1 and the rest spread evenly over e^0.2 to
    e^3 tokens.
    """
    log_tokens = 0.2 + 2.8 * rng.random(len(rare))
    rest = np.maximum(rare, 1e-300)
    entropy: npt.NDArray[np.float32] = (
        rest * (log_tokens - np.log(rest)) - (1 - rare) * np.log1p(-rare)
    ).astype("f4")
    return entropy


def _lists(ids: Ints, rank: Ints, own: int, high: Bools) -> pa.Array:
    """The TOP_K most probable tokens where `high`, null elsewhere, [S]: ids [3, S] at their ranks,
    others between.
    """
    ids, rank = ids[:, high], rank[:, high]
    steps = _STRIDE * np.arange(1, TOP_K + 4)
    pool = (ids[0][:, None] + steps) % EOS
    taken = (pool[:, :, None] == ids.T[:, None]).any(2)
    listed = np.take_along_axis(pool, np.argsort(taken, axis=1, kind="stable"), 1)[:, :TOP_K]
    if own:  # the policies agree on most, in nearly the same order
        listed[:, 4:6] = listed[:, 5:3:-1]
    for token, place in zip(ids, rank - 1, strict=True):
        there = np.flatnonzero(place < TOP_K)
        listed[there, place[there]] = token[there]
    offsets = np.append(0, np.cumsum(high * TOP_K)).astype(np.int32)
    return pa.ListArray.from_arrays(
        offsets, pa.array(listed.ravel().astype(np.int32)), mask=pa.array(~high)
    )


def _spread_lists(lists: pa.Array, rows: Ints, size: int) -> pa.Array:
    """`lists` [S] at `rows` of `size`, null elsewhere."""
    place = np.full(size, -1)
    place[rows] = np.arange(len(rows))
    return lists.take(pa.array(place, mask=place < 0))


def _other(policy: str) -> str:
    return POLICIES[1 - POLICIES.index(policy)]
