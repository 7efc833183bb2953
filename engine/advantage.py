"""Advantages re-weighted by how far a token's probability has moved: a drop-in for policy-gradient
trainers.

Divergence weights are those of "Sparse but Critical" (arXiv 2603.22446, section 5), rarity weights
those of "On the Direction of RLVR Updates" (arXiv 2603.22117). Both are constants of the loss: no
gradient flows through a weight. torch only; docs/divergence-weighting.md shows the place of these
functions in TRL and in verl.

Dimensions: B responses, T tokens. All log-probabilities are natural, of the sampled token, at the
sampling temperature.
"""

import math

import torch
from torch import Tensor

from engine.errors import ConfigError, UsageError

# exp of it is a finite float32 (infinity times an alpha of 0 would be NaN), and the weights
# saturate long before it.
_LARGEST_LOG_RATIO = 80.0


def divergence_weighted_advantage(
    advantage: Tensor, logp: Tensor, logp_old: Tensor, *, alpha: float, strength: float = 0.3
) -> Tensor:
    """A~_t = w_t A_t, w_t = 1 + s (sigmoid(alpha KL_t) - 1/2) (arXiv 2603.22446, section 5):
    `divergence_weights`.

    advantage [B] or [B, 1], one of a response, or [B, T], one of a token; logp and logp_old [B, T].
    Returns [B, T], in float32 or the inputs' wider type. Flat tokens will do too: all [N].
    """
    return weighted_advantage(
        advantage, divergence_weights(logp, logp_old, alpha=alpha, strength=strength)
    )


def weighted_advantage(advantage: Tensor, weights: Tensor) -> Tensor:
    """The product, with advantages [B], [B, 1] or [B, T] spread over the tokens of weights [B, T].

    Raises UsageError when the shapes do not fit.
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
    """w_t = 1 + s (sigmoid(alpha KL_t) - 1/2) (arXiv 2603.22446, section 5), detached.

    KL_t is `kl_estimate`, so never negative: alpha > 0 raises the weight of tokens that moved, up
    to 1 + s / 2, and alpha < 0 lowers it, down to 1 - s / 2. A token that has not moved has weight
    1 in both.

    logp, logp_old [B, T] or any one shape; logp is the policy's that is trained, logp_old its that
    sampled the tokens. alpha in 1 / nats. Returns the same shape, in float32 or the inputs' wider
    type. Every token is on its own: what stands in the padding changes no other. NaN stays NaN.
    Raises ConfigError for an alpha that is not finite and for a strength outside 0 to 2, with which
    a weight could change the sign of an advantage.
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
    """k3 = r - 1 - log r, r = exp(logp - logp_old), in nats, detached; never negative. Shapes:
    `divergence_weights`.

    On tokens sampled from the old policy its mean is KL(pi_old || pi_theta) (J. Schulman,
    "Approximating KL Divergence", 2020). Log-ratios beyond 80 count as 80.
    """
    if logp.shape != logp_old.shape:
        raise UsageError(
            f"logp has the shape {list(logp.shape)}, logp_old {list(logp_old.shape)}: give both of"
            " the same tokens"
        )
    log_ratio = _precise(logp) - _precise(logp_old)
    log_ratio = log_ratio.clamp(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    return torch.expm1(log_ratio) - log_ratio


def rarity_weights(logp_old: Tensor, *, a: float) -> Tensor:
    """w_t = 1 + a (1 - pi_old(y_t)) (arXiv 2603.22117, where a is 0.1 to 0.2), detached.

    Between 1 for a token that was certain and 1 + a for one that was hardly possible. Any shape;
    returns the same, in float32 or the input's wider type. Raises ConfigError unless a is finite
    and above -1.
    """
    if not (math.isfinite(a) and a > -1):
        raise ConfigError(f"a is {a}: give a number above -1 (the paper's are 0.1 and 0.2)")
    return 1 - a * torch.expm1(
        _precise(logp_old).clamp(max=0)
    )  # rounding could take a certain token's above 0


def _precise(logp: Tensor) -> Tensor:
    """Detached, in float32 unless wider: half precision has too few digits for a difference of
    log-probabilities.
    """
    return logp.detach().to(torch.promote_types(logp.dtype, torch.float32))
