"""The two passes of a device as Triton kernels, one program per row of the logits.

A row is read in blocks; sums are in float32 and in the same order whatever else is in the batch.
The parameters of the kernels have no types of Python's, which Triton does not compile.
Imported on devices alone, where vLLM brings Triton. `plain` has the same two functions in torch.

Dimensions: B rows of the batch, R rows that are forced, V vocabulary.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from engine.sampling import summary
from engine.sampling.distribution import FIRST_CUT

BLOCK_SIZE = 4096
"""Numbers of a row that a program takes at once: 16 a thread."""
_NUM_WARPS = 8

_COUNT = tl.constexpr(summary.COUNT)
_PREVIOUS = tl.constexpr(summary.PREVIOUS)
_BEST = tl.constexpr(summary.BEST)
_LOG_MASS = tl.constexpr(summary.LOG_MASS)
_ENTROPY = tl.constexpr(summary.ENTROPY)
_TOKEN = tl.constexpr(summary.TOKEN)
_LOG_P = tl.constexpr(summary.LOG_P)
_MAX_CANDIDATES = tl.constexpr(summary.MAX_CANDIDATES)
_WIDTH = tl.constexpr(summary.WIDTH)


def summarise(
    logits: torch.Tensor, fed: torch.Tensor | None, vocab_size: int, temperature: float
) -> torch.Tensor:
    """The first pass: summarise every row of the batch.

    Args:
        logits: Logits [B, >= V] in float32, contiguous along a row.
        fed: The engine's last token of each row [B]; None if the host knows them.
        vocab_size: V.
        temperature: Of the candidates; with 0 they are the tokens that tie for the best.

    Returns:
        Packed summaries [B, summary.WIDTH] in int32.
    """
    assert logits.stride(1) == 1
    packed = logits.new_empty((len(logits), summary.WIDTH), dtype=torch.int32)
    summarise_row[(len(logits),)](
        logits,
        logits.stride(0),
        packed if fed is None else fed,
        packed,
        vocab_size,
        1.0 / (temperature or 1.0),
        FIRST_CUT,
        HAS_FED=fed is not None,
        IS_GREEDY=temperature == 0,
        BLOCK=BLOCK_SIZE,
        num_warps=_NUM_WARPS,
    )
    return packed


def measure_and_force(
    logits: torch.Tensor, packed: torch.Tensor, plan: torch.Tensor, vocab_size: int
) -> torch.Tensor:
    """The second pass: measure two tokens of each row, then force the first of them.

    Args:
        logits: Logits [B, >= V] in float32, contiguous along a row; changed in place.
        packed: The summaries of the first pass [B, summary.WIDTH].
        plan: (row, token to force, other token) of each row, flat [3 R] in int32. Rows are
            distinct. Where the other token is < 0, nothing is measured.
        vocab_size: V.

    Returns:
        Numbers [R, 5] in float32, as of `distribution.measure` with the two tokens; undefined where
        nothing is measured.
    """
    num_rows = len(plan) // 3
    numbers = logits.new_empty((num_rows, 5))
    measure_and_force_row[(num_rows,)](
        logits,
        logits.stride(0),
        packed,
        plan,
        numbers,
        vocab_size,
        BLOCK=BLOCK_SIZE,
        num_warps=_NUM_WARPS,
    )
    return numbers


@triton.jit
def summarise_row(
    logits,
    stride,
    fed,
    packed,
    vocab_size,
    inverse_temperature,
    cut,
    HAS_FED: tl.constexpr,
    IS_GREEDY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Summarise one row, see `summarise`."""
    row = tl.program_id(0)
    logits += row.to(tl.int64) * stride
    packed += row * _WIDTH
    lane = tl.arange(0, BLOCK)

    # Sums of exp(x - best), of exp(x - best) (x - best), and of the first at the temperature,
    # brought up to date where a block holds a better logit. A NaN or +inf makes `mass` NaN.
    best = tl.full((), float("-inf"), tl.float32)
    mass = tl.full((), 0.0, tl.float32)
    moment = tl.full((), 0.0, tl.float32)
    tempered_mass = tl.full((), 0.0, tl.float32)
    for first in range(0, vocab_size, BLOCK):
        token = first + lane
        x = tl.load(logits + token, mask=token < vocab_size, other=float("-inf"))
        new_best = tl.maximum(best, tl.max(x, 0))
        below = tl.where(new_best == float("-inf"), x, x - new_best)
        weight = tl.exp(below)
        fallen = tl.where(best == float("-inf"), 0.0, best - new_best)
        shrink = tl.exp(fallen)
        moment = shrink * (moment + mass * fallen)
        moment += tl.sum(tl.where(weight > 0, weight * below, 0.0), 0)
        mass = shrink * mass + tl.sum(weight, 0)
        tempered_mass *= tl.exp(fallen * inverse_temperature)
        tempered_mass += tl.sum(tl.exp(below * inverse_temperature), 0)
        best = new_best
    log_mass = tl.log(mass)
    entropy = log_mass - moment / mass
    tempered_log_mass = tl.log(tempered_mass)

    # The row again, mostly from the L2 cache: candidates take the next slots, by rising id.
    bound = best + (cut + tempered_log_mass) / inverse_temperature
    if IS_GREEDY:
        bound = best
    count = tl.full((), 0, tl.int32)
    for first in range(0, vocab_size, BLOCK):
        token = first + lane
        x = tl.load(logits + token, mask=token < vocab_size, other=float("-inf"))
        is_candidate = (x >= bound) & (token < vocab_size)
        num = tl.sum(is_candidate.to(tl.int32), 0)
        if num > 0:
            slot = count + tl.cumsum(is_candidate.to(tl.int32), 0) - 1
            has_room = is_candidate & (slot < _MAX_CANDIDATES)
            log_p = (x - best) * inverse_temperature - tempered_log_mass
            tl.store(packed + _TOKEN + slot, token, mask=has_room)
            tl.store(packed + _LOG_P + slot, log_p.to(tl.int32, bitcast=True), mask=has_room)
        count += num

    tl.store(packed + _COUNT, count)
    if HAS_FED:
        tl.store(packed + _PREVIOUS, tl.load(fed + row).to(tl.int32))
    tl.store(packed + _BEST, best.to(tl.int32, bitcast=True))
    tl.store(packed + _LOG_MASS, log_mass.to(tl.int32, bitcast=True))
    tl.store(packed + _ENTROPY, entropy.to(tl.int32, bitcast=True))


@triton.jit
def measure_and_force_row(
    logits,
    stride,
    packed,
    plan,
    numbers,
    vocab_size,
    BLOCK: tl.constexpr,
):
    """Measure and force one row of the plan, see `measure_and_force`."""
    index = tl.program_id(0)
    row = tl.load(plan + 3 * index)
    token = tl.load(plan + 3 * index + 1)
    other = tl.load(plan + 3 * index + 2)
    logits += row.to(tl.int64) * stride
    if other >= 0:
        scalars = packed + row * _WIDTH
        measured = numbers + 5 * index
        x_of_token = tl.load(logits + token)
        x_of_other = tl.load(logits + other)
        lane = tl.arange(0, BLOCK)
        above_token = tl.full((BLOCK,), 0, tl.int32)
        above_other = tl.full((BLOCK,), 0, tl.int32)
        for first in range(0, vocab_size, BLOCK):
            at = first + lane
            x = tl.load(logits + at, mask=at < vocab_size, other=float("-inf"))
            above_token += (x > x_of_token).to(tl.int32)
            above_other += (x > x_of_other).to(tl.int32)
        best = tl.load(scalars + _BEST).to(tl.float32, bitcast=True)
        log_mass = tl.load(scalars + _LOG_MASS).to(tl.float32, bitcast=True)
        tl.store(measured, tl.load(scalars + _ENTROPY).to(tl.float32, bitcast=True))
        tl.store(measured + 1, x_of_token - best - log_mass)
        tl.store(measured + 2, x_of_other - best - log_mass)
        tl.store(measured + 3, (tl.sum(above_token, 0) + 1).to(tl.float32))
        tl.store(measured + 4, (tl.sum(above_other, 0) + 1).to(tl.float32))
        # No thread may force the token while another one still reads the row.
        tl.debug_barrier()
    tl.store(logits + token, float("inf"))
