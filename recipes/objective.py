"""The objective of the RL stage: group-relative advantages, and a clipped loss that is averaged
over tokens.

Pure functions on tensors; they know of no model. N tokens of a minibatch, all its responses one
after the other; G responses of a group, to one prompt. Log-probabilities are natural and at
temperature 1.
"""

import torch
from torch import Tensor


def group_advantages(rewards: Tensor) -> Tensor:
    """Rewards [G] of one prompt's responses, standardised; zeros where all are equal.

    (R_i - mean) / std with the population's standard deviation: DeepSeekMath (arXiv 2402.03300),
    section 4.1.2.
    """
    if rewards.max() == rewards.min():
        return torch.zeros_like(rewards)
    return (rewards - rewards.mean()) / rewards.std(correction=0)


def clipped_loss(
    logp: Tensor, logp_old: Tensor, advantage: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """Minus the mean over tokens of min(r A, clip(r, 1 - clip_low, 1 + clip_high) A); all [N], the
    result a scalar.

    r = exp(logp - logp_old). A long response counts for more than a short one, as it has more
    tokens: DAPO (arXiv 2503.14476), section 3.
    """
    ratio = (logp - logp_old).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()


def is_clipped(
    logp: Tensor, logp_old: Tensor, advantage: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """Tokens [N], bool, that have no gradient any more, because the policy has gone far enough for
    them.
    """
    ratio = (logp - logp_old).exp()
    return torch.where(
        advantage > 0, ratio > 1 + clip_high, (ratio < 1 - clip_low) & (advantage < 0)
    )


def kl_penalty(logp: Tensor, logp_base: Tensor) -> Tensor:
    """Mean of r - 1 - log r, r = exp(logp_base - logp), in nats; both [N], the result a scalar with
    a gradient.

    The k3 estimator of KL(policy || base) on the policy's own samples (J. Schulman, "Approximating
    KL Divergence", 2020), as GRPO has it in its loss (arXiv 2402.03300, equation 4).
    """
    log_ratio = logp_base - logp
    return (torch.expm1(log_ratio) - log_ratio).mean()
