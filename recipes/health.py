"""Is a training still one? What is not finite, or has no entropy left, ends it before it is
saved.
"""

import math

from engine.errors import XsampleError
from recipes.progress import Metrics

_MUST_BE_FINITE = ("loss", "gradient_norm")


class TrainingError(XsampleError):
    """A training has diverged. The last checkpoint and the state that belongs to it are as they
    were.
    """


def check_health(row: Metrics, min_entropy: float) -> None:
    """Raise TrainingError, with the step and the reason, unless this step's measurements are
    healthy.

    min_entropy in nats a token, of the tokens that the policy sampled: a policy that always says
    the same finds nothing new, and its groups have equal rewards.
    """
    for name in _MUST_BE_FINITE:
        value = row.get(name)
        if value is not None and not math.isfinite(value):
            _stop(row, f"{name} is {value}", "lower the learning rate")
    entropy = row.get("entropy")
    if entropy is not None and entropy < min_entropy:
        _stop(
            row,
            f"entropy is {entropy:.4f} nats a token, below min_entropy {min_entropy}",
            "raise clip_high",
        )


def _stop(row: Metrics, reason: str, way_out: str) -> None:
    raise TrainingError(
        f"training stopped at step {row['step']}: {reason}; the last checkpoint is kept: {way_out},"
        " with another --out"
    )
