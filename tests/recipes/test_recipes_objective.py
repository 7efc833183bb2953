"""The RL stage's objective against a slow, obvious reference in double precision: loops over
tokens, Python floats.
"""

import math
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from engine.errors import ConfigError
from recipes.model import load_model, load_tokenizer
from recipes.objective import clipped_loss, group_advantages, is_clipped, kl_penalty
from recipes.rl_config import RLConfig
from recipes.rollout import Rollout, roll_out
from recipes.state import Learner, adam
from recipes.update import token_weights, update
from tests.support.paths import ROOT

BASE = ROOT / "engine" / "tiny_pair" / "base"
CLIP = {"clip_low": 0.2, "clip_high": 0.28}
STEP = 1e-6


def reference_loss(
    logp: Sequence[float],
    logp_old: Sequence[float],
    advantage: Sequence[float],
    weight: Sequence[float],
) -> float:
    total = 0.0
    for now, old, gain, w in zip(logp, logp_old, advantage, weight, strict=True):
        ratio = math.exp(now - old)
        clipped = min(max(ratio, 1 - CLIP["clip_low"]), 1 + CLIP["clip_high"])
        total += min(ratio * w * gain, clipped * w * gain)
    return -total / len(logp)


def reference_weight(now: float, old: float, config: RLConfig) -> float:
    k3 = math.exp(now - old) - 1 - (now - old)
    divergence = 1 + config.strength * (1 / (1 + math.exp(-config.alpha * k3)) - 0.5)
    return divergence * (1 + config.rarity * (1 - math.exp(old)))


def tokens(num: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """logp, logp_old and advantages of tokens whose ratios lie on both sides of both clips, in
    double precision.
    """
    rng = random.Random(seed)
    old = [math.log(rng.uniform(0.01, 1)) for _ in range(num)]
    now = [value + rng.uniform(-0.6, 0.6) for value in old]
    gains = [rng.choice((-1.5, 0.5, 1.0)) for _ in range(num)]
    return (
        torch.tensor(now, dtype=torch.float64, requires_grad=True),
        torch.tensor(old, dtype=torch.float64),
        torch.tensor(gains, dtype=torch.float64),
    )


def slope(values: list[float], place: int, of: Sequence[Sequence[float]]) -> float:
    """Central difference of the reference loss at one token's log-probability."""
    above, below = (
        [*values[:place], values[place] + move, *values[place + 1 :]] for move in (STEP, -STEP)
    )
    return (reference_loss(above, *of) - reference_loss(below, *of)) / (2 * STEP)


@pytest.mark.parametrize(
    "config", [RLConfig(), RLConfig(alpha=300.0), RLConfig(alpha=-300.0), RLConfig(rarity=0.2)]
)
@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
def test_the_loss_has_the_gradient_of_the_reference_whose_weights_are_constants(
    config: RLConfig, precision: torch.dtype
) -> None:
    exact, old, gains = tokens(60, seed=0)
    logp = exact.detach().to(precision).requires_grad_()
    weights = token_weights(logp, old.to(precision), config)
    loss = clipped_loss(logp, old.to(precision), weights * gains.to(precision), **CLIP)
    torch.autograd.backward(loss)
    values, olds = exact.tolist(), old.tolist()
    constants = [
        reference_weight(now, before, config) for now, before in zip(values, olds, strict=True)
    ]
    of = (olds, gains.tolist(), constants)
    expected = torch.tensor(
        [slope(values, place, of) for place in range(len(values))], dtype=torch.float64
    )
    accuracy = 1e-8 if precision == torch.float64 else 1e-6
    assert loss.item() == pytest.approx(
        reference_loss(values, *of), rel=1e-9 if precision == torch.float64 else 1e-5
    )
    assert logp.grad is not None
    assert torch.allclose(logp.grad.double(), expected, atol=accuracy)
    assert expected.abs().max() > 1e-3


def test_the_penalty_has_the_gradient_of_its_formula() -> None:
    logp, base, _ = tokens(20, seed=1)
    penalty = kl_penalty(logp, base)
    torch.autograd.backward(penalty)
    ratios = [math.exp(b - now) for now, b in zip(logp.tolist(), base.tolist(), strict=True)]
    assert penalty.item() == pytest.approx(sum(r - 1 - math.log(r) for r in ratios) / 20, rel=1e-12)
    assert logp.grad is not None
    assert logp.grad.tolist() == pytest.approx([(1 - r) / 20 for r in ratios], rel=1e-9)


def test_the_clip_bounds_what_a_token_can_gain() -> None:
    ratios = torch.tensor([1.0, 2.0, 0.5])
    gain = -clipped_loss(ratios.log(), torch.zeros(3), torch.ones(3), **CLIP)
    loss = clipped_loss(ratios.log(), torch.zeros(3), -torch.ones(3), **CLIP)
    assert gain.item() == pytest.approx((1 + 1.28 + 0.5) / 3)
    assert loss.item() == pytest.approx((1 + 2 + 0.8) / 3)


def test_a_token_counts_as_clipped_where_it_has_no_gradient_and_an_advantage() -> None:
    logp, old, gains = tokens(200, seed=2)
    torch.autograd.backward(clipped_loss(logp, old, gains, **CLIP))
    assert logp.grad is not None
    clipped = is_clipped(logp.detach(), old, gains, **CLIP)
    assert torch.equal(clipped, logp.grad == 0)
    assert 0 < int(clipped.sum()) < 200


def test_advantages_are_standardised_and_vanish_in_an_even_group() -> None:
    assert group_advantages(torch.tensor([1.0, 1.0, 1.0])).tolist() == [0, 0, 0]
    assert group_advantages(torch.tensor([1.0, 0.0, 0.0, 1.0])).tolist() == [1, -1, -1, 1]


def test_an_update_has_the_gradient_of_unpadded_sequences_in_double_precision() -> None:
    """Of the whole way from rollouts to the weights of the model: padding, masks, old
    log-probabilities, penalty.
    """
    model, base = load_model(BASE), load_model(BASE)
    groups = roll_out(
        model, load_tokenizer(BASE), ["58+26", "19+60+20-49"], 2, torch.Generator().manual_seed(0)
    )
    moved = [
        Rollout(
            r.ids,
            r.num_prompt_tokens,
            [logp + 0.01 * place for place, logp in enumerate(r.logp)],
            0,
            0.5 - index,
        )
        for group in groups
        for index, r in enumerate(group)
    ]
    config = RLConfig(alpha=100.0, kl_coefficient=0.5, max_gradient=1e9)
    exact = load_model(BASE).double()
    learner = Learner(model, adam(model, 1e-4, 0), random.Random(0), torch.Generator())
    update(learner, base, moved, config)
    torch.autograd.backward(reference_objective(exact, moved, config))
    for parameter, reference in zip(model.parameters(), exact.parameters(), strict=True):
        assert parameter.grad is not None and reference.grad is not None
        assert torch.allclose(parameter.grad.double(), reference.grad, rtol=1e-3, atol=2e-6)


def reference_objective(
    model: torch.nn.Module, rollouts: Sequence[Rollout], config: RLConfig
) -> Tensor:
    """One sequence after the other, one token after the other. The base is the model itself, as a
    constant.
    """
    terms = []
    for rollout in rollouts:
        logits = (
            model(input_ids=torch.tensor([rollout.ids]), use_cache=False).logits[0].log_softmax(-1)
        )
        for place, old in enumerate(rollout.logp):
            position = rollout.num_prompt_tokens + place
            logp = logits[position - 1, rollout.ids[position]]
            ratio = (logp - old).exp()
            weighted = reference_weight(logp.item(), old, config) * rollout.advantage
            gain = torch.minimum(ratio * weighted, ratio.clamp(0.8, 1.28) * weighted)
            log_base = logp.item() - logp
            terms.append(-gain + config.kl_coefficient * (log_base.exp() - 1 - log_base))
    return torch.stack(terms).mean()


def test_a_weighting_that_could_never_act_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"alpha is 5.0 and num_minibatches 1"):
        RLConfig(alpha=5.0, num_minibatches=1)
