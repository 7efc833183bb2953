"""Weights of the advantage: against plain Python floats, in range, monotone, finite, and constants
of the loss.
"""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from engine.advantage import (
    divergence_weighted_advantage,
    divergence_weights,
    kl_estimate,
    rarity_weights,
    weighted_advantage,
)
from engine.errors import ConfigError, UsageError

logps = st.floats(-700, 0)
alphas = st.floats(-1e6, 1e6)
strengths = st.floats(0, 1.99)


def float64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def oracle_kl(logp: float, logp_old: float) -> float:
    """k3 as it is written in the paper, for log-ratios that are neither tiny nor huge."""
    ratio = math.exp(logp - logp_old)
    return ratio - 1 - math.log(ratio)


def oracle_weight(logp: float, logp_old: float, alpha: float, strength: float) -> float:
    return 1 + strength * (1 / (1 + math.exp(-alpha * oracle_kl(logp, logp_old))) - 0.5)


# The formulae


@given(logps, st.floats(-5, 5), st.floats(-4, 4), strengths)
def test_a_weight_is_the_formula_in_plain_floats(
    old: float, log_ratio: float, alpha: float, strength: float
) -> None:
    logp = old + log_ratio
    weight = divergence_weights(float64(logp), float64(old), alpha=alpha, strength=strength).item()
    assert weight == pytest.approx(oracle_weight(logp, old, alpha, strength), abs=1e-9)


@given(st.floats(-50, 0), st.floats(-0.99, 10))
def test_a_rarity_weight_is_the_formula_in_plain_floats(logp_old: float, a: float) -> None:
    assert rarity_weights(float64(logp_old), a=a).item() == pytest.approx(
        1 + a * (1 - math.exp(logp_old)), abs=1e-12
    )


def test_the_estimates_mean_over_sampled_tokens_is_the_kl_from_old_to_new() -> None:
    old, new = float64(0.5, 0.3, 0.2), float64(0.2, 0.7, 0.1)
    exact = (old * (old / new).log()).sum()
    assert (old * kl_estimate(new.log(), old.log())).sum().item() == pytest.approx(exact.item())


def test_the_estimate_keeps_its_digits_after_one_small_step() -> None:
    """Of a float32 log-ratio of 1e-3, exp(d) - 1 - d is 5 % off; expm1(d) - d is 0.01 % off."""
    log_ratio = 1e-3
    exact = log_ratio**2 / 2 + log_ratio**3 / 6
    assert kl_estimate(float64(log_ratio), float64(0)).item() == pytest.approx(exact, rel=1e-6)
    assert kl_estimate(torch.tensor([log_ratio]), torch.zeros(1)).item() == pytest.approx(
        exact, rel=1e-3
    )


# Range and order


@given(logps, logps, alphas, strengths)
def test_a_weight_stays_within_half_the_strength_of_1(
    logp: float, old: float, alpha: float, strength: float
) -> None:
    weight = divergence_weights(
        torch.tensor([logp]), torch.tensor([old]), alpha=alpha, strength=strength
    ).item()
    assert 1 - strength / 2 - 1e-6 <= weight <= 1 + strength / 2 + 1e-6
    assert (weight - 1) * alpha >= 0


@given(
    st.lists(st.floats(0, 100), min_size=2, max_size=20),
    st.sampled_from([-1, 1]),
    st.floats(1e-3, 1e3),
)
def test_the_weight_follows_the_divergence_up_or_down(
    moves: list[float], sign: int, alpha: float
) -> None:
    logp = -torch.tensor(sorted(moves), dtype=torch.float64)
    for direction in (1, -1):
        weights = divergence_weights(direction * logp, torch.zeros_like(logp), alpha=sign * alpha)
        assert (sign * weights.diff() >= 0).all()


@pytest.mark.parametrize(("alpha", "is_above"), [(100.0, True), (-100.0, False)])
def test_alphas_sign_says_which_tokens_count_more(alpha: float, is_above: bool) -> None:
    still, moved = divergence_weights(
        torch.tensor([-1.0, -0.5]), torch.tensor([-1.0, -1.0]), alpha=alpha
    )
    assert still == 1
    assert (moved > still) == is_above


def test_an_alpha_or_a_strength_of_0_weighs_nothing() -> None:
    logp, old = torch.tensor([-0.1, -90.0, -math.inf]), torch.tensor([-5.0, -1e-3, -1.0])
    assert divergence_weights(logp, old, alpha=0).tolist() == [1, 1, 1]
    assert divergence_weights(logp, old, alpha=1e4, strength=0).tolist() == [1, 1, 1]


def test_a_rare_token_weighs_more_than_a_certain_one() -> None:
    weights = rarity_weights(torch.tensor([-math.inf, -5.0, -0.1, 0.0, 1e-3]), a=0.2).tolist()
    assert weights == sorted(weights, reverse=True)
    assert [weights[0], *weights[-2:]] == pytest.approx([1.2, 1, 1])


# Numbers that overflow, few digits, padding


@pytest.mark.parametrize("alpha", [-1e30, -1.0, 0.0, 1.0, 1e30])
@pytest.mark.parametrize(
    ("logp", "old"), [(0, -1e4), (-1e4, 0), (0, -math.inf), (-math.inf, 0), (-1e38, 1e38)]
)
def test_a_weight_is_finite_however_far_a_token_moved(
    logp: float, old: float, alpha: float
) -> None:
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        weight = divergence_weights(
            torch.tensor([logp], dtype=dtype), torch.tensor([old], dtype=dtype), alpha=alpha
        )
        assert 0.85 <= round(weight.item(), 6) <= 1.15


def test_bfloat16_is_computed_and_returned_in_float32() -> None:
    logp, old = (torch.tensor([value], dtype=torch.bfloat16) for value in (-1.0, -1.0625))
    weights = divergence_weights(logp, old, alpha=10)
    assert weights.dtype == rarity_weights(old, a=0.1).dtype == torch.float32
    assert weights.item() == pytest.approx(oracle_weight(-1.0, -1.0625, 10, 0.3), abs=1e-6)
    assert divergence_weighted_advantage(torch.ones(1), logp, old, alpha=10).dtype == torch.float32


def test_padding_changes_no_other_token() -> None:
    logp, old = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -1.0]])
    padded = torch.tensor([[-1.0, -2.0, math.nan]]), torch.tensor([[-1.5, -1.0, 0.0]])
    weights = divergence_weights(*padded, alpha=50)
    assert torch.equal(weights[:, :2], divergence_weights(logp, old, alpha=50))
    assert weights[:, 2].isnan().all()


# Shapes and settings


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 3)])
def test_an_advantage_of_a_response_is_one_of_each_of_its_tokens(shape: tuple[int, ...]) -> None:
    logp, old = torch.tensor([[-1.0, -2, -3], [-3, -2, -1]]), torch.full((2, 3), -2.0)
    advantage = (
        torch.tensor([[1.0], [-2.0]])
        .expand(2, 3)[:, : shape[-1] if len(shape) > 1 else 1]
        .reshape(shape)
    )
    weights = divergence_weights(logp, old, alpha=5)
    weighted = divergence_weighted_advantage(advantage, logp, old, alpha=5)
    assert torch.equal(weighted, torch.stack([weights[0], -2 * weights[1]]))


def test_flat_tokens_of_all_responses_will_do_too() -> None:
    weighted = weighted_advantage(torch.tensor([1.0, -1.0]), torch.tensor([1.1, 0.9]))
    assert weighted.tolist() == pytest.approx([1.1, -0.9])


def test_shapes_that_do_not_fit_are_refused_and_named() -> None:
    with pytest.raises(UsageError, match=r"logp has the shape \[2, 3\], logp_old \[2, 1\]"):
        divergence_weights(torch.zeros(2, 3), torch.zeros(2, 1), alpha=1)
    for shape in ((3,), (3, 1), (2, 2), (1, 2, 3)):
        with pytest.raises(UsageError, match=r"\[B\] or \[B, 1\]"):
            weighted_advantage(torch.zeros(shape), torch.ones(2, 3))


@pytest.mark.parametrize("alpha", [math.nan, math.inf, -math.inf])
def test_an_alpha_that_is_no_number_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha is"):
        divergence_weights(torch.zeros(1), torch.zeros(1), alpha=alpha)


@pytest.mark.parametrize("strength", [-0.1, 2.0, math.nan])
def test_a_strength_that_could_turn_an_advantage_round_is_refused(strength: float) -> None:
    with pytest.raises(ConfigError, match="strength is"):
        divergence_weights(torch.zeros(1), torch.zeros(1), alpha=1, strength=strength)


@pytest.mark.parametrize("a", [-1.0, math.nan, math.inf])
def test_an_a_that_could_turn_an_advantage_round_is_refused(a: float) -> None:
    with pytest.raises(ConfigError, match="a is"):
        rarity_weights(torch.zeros(1), a=a)


# Gradients


def clipped_loss(logp: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
    ratio = (logp - old).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage).mean()


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """logp and logp_old [4, 5] and advantages [4], float64; logp asks for its gradient."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(4, 5, dtype=torch.float64, generator=generator) * 3
    logp = old + torch.randn(4, 5, dtype=torch.float64, generator=generator) * 0.2
    return logp.requires_grad_(), old, torch.randn(4, dtype=torch.float64, generator=generator)


def test_no_gradient_flows_through_a_weight() -> None:
    logp, old, advantage = drawn(0)
    old.requires_grad_()
    assert not divergence_weights(logp, old, alpha=50).requires_grad
    assert not rarity_weights(old, a=0.1).requires_grad
    assert not divergence_weighted_advantage(advantage, logp, old, alpha=50).requires_grad


def test_the_losss_gradient_is_the_one_with_plain_numbers_for_weights() -> None:
    logp, old, advantage = drawn(1)
    constants = torch.tensor(divergence_weights(logp, old, alpha=50).tolist(), dtype=torch.float64)
    weighted = divergence_weighted_advantage(advantage, logp, old, alpha=50)
    (ours,) = torch.autograd.grad(clipped_loss(logp, old, weighted), logp)
    (reference,) = torch.autograd.grad(
        clipped_loss(logp, old, advantage[:, None] * constants), logp
    )
    assert torch.equal(ours, reference)
    assert not torch.equal(
        ours, torch.autograd.grad(clipped_loss(logp, old, advantage[:, None]), logp)[0]
    )


def test_the_gradient_is_that_of_finite_differences_in_float64() -> None:
    logp, old, advantage = drawn(2)
    weighted = divergence_weighted_advantage(advantage, logp, old, alpha=50)
    assert torch.autograd.gradcheck(lambda at: clipped_loss(at, old, weighted), logp)


def test_the_float32_gradient_is_the_float64_one_up_to_rounding() -> None:
    exact, rounded = (gradient_in(dtype) for dtype in (torch.float64, torch.float32))
    assert torch.allclose(exact, rounded.double(), rtol=1e-4, atol=1e-7)


def gradient_in(dtype: torch.dtype) -> Tensor:
    logp, old, advantage = (tensor.detach().to(dtype) for tensor in drawn(3))
    weighted = divergence_weighted_advantage(advantage, logp.requires_grad_(), old, alpha=50)
    return torch.autograd.grad(clipped_loss(logp, old, weighted), logp)[0]


def test_the_module_needs_torch_and_neither_vllm_nor_ray() -> None:
    code = "import sys, engine.advantage; print({'vllm', 'ray', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
