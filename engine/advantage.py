"""Advantages weighted by how far the probability of each token has moved, for any trainer.

Divergence weights are those of "Sparse but Critical" (arXiv 2603.22446, section 5), rarity weights
those of "On the Direction of RLVR Updates" (arXiv 2603.22117). Both are constants of the loss: no
gradient flows through a weight. These functions need torch only; docs/divergence-weighting.md shows
their place in TRL and in verl.

Dimensions: B responses, T tokens. All log-probabilities are natural, of the sampled token, at the
sampling temperature.
"""

import math

import torch
from torch import Tensor

from engine.errors import ConfigError, UsageError

# Its exponential is a finite float32 (infinity times an alpha of 0 would be NaN), and the weights
# saturate long before it.
_MAX_LOG_RATIO = 80.0


def divergence_weighted_advantage(
    advantage: Tensor, logp: Tensor, logp_old: Tensor, *, alpha: float, strength: float = 0.3
) -> Tensor:
    """Advantages times divergence weights: w_t A_t of arXiv 2603.22446, section 5.

    Flat tokens will do too: every argument is then [N].

    Args:
        advantage: One advantage per response [B] or [B, 1], or one per token [B, T].
        logp: Log-probabilities under the policy that is trained [B, T].
        logp_old: Log-probabilities under the policy that sampled the tokens [B, T].
        alpha: As in `divergence_weights`.
        strength: As in `divergence_weights`.

    Returns:
        Advantages [B, T], in float32 or the inputs' wider type.

    Raises:
        ConfigError: alpha or strength is out of its range.
        UsageError: The shapes do not fit.
    """
    return weighted_advantage(
        advantage, divergence_weights(logp, logp_old, alpha=alpha, strength=strength)
    )


def weighted_advantage(advantage: Tensor, weights: Tensor) -> Tensor:
    """Advantages times weights.

    Args:
        advantage: One advantage per response [B] or [B, 1], or one per token [B, T].
        weights: Weights [B, T].

    Returns:
        Advantages [B, T].

    Raises:
        UsageError: The shapes do not fit.
    """
    spread = advantage.unsqueeze(-1) if advantage.dim() == weights.dim() - 1 else advantage
    if spread.dim() != weights.dim() or any(
        n not in (1, m) for n, m in zip(spread.shape, weights.shape, strict=True)
    ):
        raise UsageError(
            f"advantage has the shape {list(advantage.shape)}, the tokens {list(weights.shape)}: "
            "give one of a response ([B] or [B, 1]) or one of a token ([B, T])"
        )
    return spread * weights


def divergence_weights(
    logp: Tensor, logp_old: Tensor, *, alpha: float, strength: float = 0.3
) -> Tensor:
    """w_t = 1 + s (sigmoid(alpha KL_t) - 1/2) (arXiv 2603.22446, section 5).

    KL_t is `kl_estimate`, which is never negative. So alpha > 0 raises the weight of tokens that
    moved, up to 1 + s / 2, and alpha < 0 lowers it, down to 1 - s / 2. A token that has not moved
    has weight 1 in both cases. Each weight depends on its own token only, so padding changes no
    other. NaN stays NaN.

    Args:
        logp: Log-probabilities under the policy that is trained [B, T], or of any shape.
        logp_old: Log-probabilities under the policy that sampled the tokens, of the same shape.
        alpha: In 1 / nats.
        strength: s. From 2 on, a weight could change the sign of an advantage.

    Returns:
        Weights of the same shape, detached, in float32 or the inputs' wider type.

    Raises:
        ConfigError: alpha is not finite, or strength is not in [0, 2).
        UsageError: The two shapes differ.
    """
    if not math.isfinite(alpha):
        raise ConfigError(
            f"alpha is {alpha}: give a finite number, above 0 to weight up tokens that moved"
        )
    if not 0 <= strength < 2:
        raise ConfigError(
            f"strength is {strength}: give a number of at least 0 and below 2 (the paper's is 0.3)"
        )
    # sigmoid(x) - 1/2 = tanh(x / 2) / 2, which keeps the digits of a small x.
    return 1 + strength / 2 * torch.tanh(alpha / 2 * kl_estimate(logp, logp_old))


def kl_estimate(logp: Tensor, logp_old: Tensor) -> Tensor:
    """k3 = r - 1 - log r with r = exp(logp - logp_old), an estimate of a KL divergence.

    On tokens sampled from the old policy its mean is KL(pi_old || pi_theta) (J. Schulman,
    "Approximating KL Divergence", 2020). Log-ratios beyond 80 count as 80.

    Args:
        logp: Log-probabilities under the policy that is trained [B, T], or of any shape.
        logp_old: Log-probabilities under the policy that sampled the tokens, of the same shape.

    Returns:
        Estimates of the same shape in nats, detached, never negative.

    Raises:
        UsageError: The two shapes differ.
    """
    if logp.shape != logp_old.shape:
        raise UsageError(
            f"logp has the shape {list(logp.shape)}, logp_old {list(logp_old.shape)}: give both of"
            " the same tokens"
        )
    log_ratio = _precise(logp) - _precise(logp_old)
    log_ratio = log_ratio.clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO)
    return torch.expm1(log_ratio) - log_ratio


def rarity_weights(logp_old: Tensor, *, a: float) -> Tensor:
    """w_t = 1 + a (1 - pi_old(y_t)) (arXiv 2603.22117, where a is 0.1 to 0.2).

    A token that was certain has weight 1, one that was hardly possible has weight 1 + a.

    Args:
        logp_old: Log-probabilities under the policy that sampled the tokens, of any shape.
        a: The weight that a rare token gains.

    Returns:
        Weights of the same shape, detached, in float32 or the input's wider type.

    Raises:
        ConfigError: a is not finite, or not above -1.
    """
    if not (math.isfinite(a) and a > -1):
        raise ConfigError(f"a is {a}: give a number above -1 (the paper's are 0.1 and 0.2)")
    # Rounding may leave a certain token's log-probability above 0.
    return 1 - a * torch.expm1(_precise(logp_old).clamp(max=0))


def _precise(logp: Tensor) -> Tensor:
    """Log-probabilities, detached, in float32 or their own wider type."""
    # Half precision has too few digits for a difference of log-probabilities.
    return logp.detach().to(torch.promote_types(logp.dtype, torch.float32))
