"""One step of the optimiser in the RL stage, and what it measures on its way. N response tokens of
a minibatch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from transformers import Qwen2ForCausalLM

from engine.advantage import divergence_weights, kl_estimate, rarity_weights
from recipes.model import collate, log_probs
from recipes.objective import clipped_loss, is_clipped, kl_penalty
from recipes.progress import Metrics
from recipes.rl_config import RLConfig
from recipes.rollout import Rollout
from recipes.state import Learner

_COLUMNS = (
    "loss", "gradient_norm", "clipped", "kl_base", "k3", "k3_p99", "weight_mean", "weight_min",
    "weight_max",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Update:
    loss: float
    gradient_norm: float
    clipped: float  # share of tokens
    kl_base: float | None  # nats a token; None without a penalty
    k3: Tensor  # [N] nats
    weights: Tensor  # [N]


def update(
    learner: Learner, base: Qwen2ForCausalLM | None, rollouts: Sequence[Rollout], config: RLConfig
) -> Update:
    """Move the model by one step on the clipped objective; `base` is the penalty's reference, None
    without one.
    """
    batch = collate([(rollout.ids, rollout.num_prompt_tokens) for rollout in rollouts])
    is_response = batch.is_response[:, 1:]
    advantage = torch.tensor([r.advantage for r in rollouts])[:, None].expand_as(is_response)[
        is_response
    ]
    logp_old = torch.tensor([logp for rollout in rollouts for logp in rollout.logp])
    logp = log_probs(learner.model, batch.ids)[is_response]
    weights = token_weights(logp, logp_old, config)
    clip = {"clip_low": config.clip_low, "clip_high": config.clip_high}
    loss = clipped_loss(logp, logp_old, weights * advantage, **clip)
    penalty = None if base is None else kl_penalty(logp, log_probs(base, batch.ids)[is_response])
    if penalty is not None:
        loss = loss + config.kl_coefficient * penalty
    norm = _descend(learner, loss, config.max_gradient)
    clipped = is_clipped(logp.detach(), logp_old, advantage, **clip).float().mean()
    kl_base = None if penalty is None else penalty.item()
    return Update(loss.item(), norm, clipped.item(), kl_base, kl_estimate(logp, logp_old), weights)


def token_weights(logp: Tensor, logp_old: Tensor, config: RLConfig) -> Tensor:
    """Of the advantages, [N], detached; exactly 1 where the configuration asks for none."""
    divergence = divergence_weights(logp, logp_old, alpha=config.alpha, strength=config.strength)
    return divergence * rarity_weights(logp_old, a=config.rarity)


def _descend(learner: Learner, loss: Tensor, max_gradient: float) -> float:
    """The gradient's norm before it is clipped."""
    learner.optimizer.zero_grad()
    torch.autograd.backward(loss)
    norm = torch.nn.utils.clip_grad_norm_(learner.model.parameters(), max_gradient)
    learner.optimizer.step()
    return norm.item()


def summary(updates: Sequence[Update]) -> Metrics:
    """Of a training step; all null where no group was informative, so that there was nothing to
    learn from.
    """
    if not updates:
        return dict.fromkeys(_COLUMNS)
    k3, weights = (
        torch.cat([one.k3 for one in updates]),
        torch.cat([one.weights for one in updates]),
    )
    penalties = [one.kl_base for one in updates if one.kl_base is not None]
    values = (
        fmean(one.loss for one in updates),
        fmean(one.gradient_norm for one in updates),
        fmean(one.clipped for one in updates),
        fmean(penalties) if penalties else None,
        k3.mean().item(),
        k3.quantile(0.99).item(),
        weights.mean().item(),
        weights.min().item(),
        weights.max().item(),
    )
    return dict(zip(_COLUMNS, values, strict=True))
