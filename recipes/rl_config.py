"""What an RL training is: its numbers, and the named sets of them."""

import math
from dataclasses import dataclass

from engine.errors import ConfigError


@dataclass(frozen=True, slots=True)
class RLConfig:
    """The defaults are those that made the shipped pair."""

    num_steps: int = 80
    num_prompts: int = 32
    group_size: int = 8
    # of sampling a step: above 1, groups of equal rewards are sampled anew (dynamic sampling)
    max_rounds: int = 1
    num_minibatches: int = 2  # optimiser steps a rollout
    learning_rate: float = 1e-4
    clip_low: float = 0.2
    clip_high: float = 0.28
    kl_coefficient: float = 0.0  # of KL(policy || base)
    alpha: float = (
        0.0  # 1 / nats: above 0 tokens that moved weigh more, below 0 less, at 0 all are equal
    )
    strength: float = 0.3
    rarity: float = 0.0  # improbable tokens weigh up to 1 + rarity
    max_gradient: float = 1.0
    min_entropy: float = (
        0.01  # nats a token; below it the policy has collapsed. Healthy trainings stay above 0.049
    )

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_prompts", "max_rounds", "num_minibatches"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: give at least 1")
        for name in ("learning_rate", "clip_low", "clip_high", "max_gradient"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}: give a finite number above 0")
        if self.group_size < 2:
            raise ConfigError(
                f"group_size is {self.group_size}: an advantage compares responses, give at least 2"
            )
        if self.alpha and self.num_minibatches < 2:
            raise ConfigError(
                f"alpha is {self.alpha} and num_minibatches {self.num_minibatches}: in the first"
                " step of the optimiser after a rollout no token has moved, and every weight is 1;"
                " give at least 2"
            )


# dapo: the clip, the dynamic sampling and the absent KL term of arXiv 2503.14476. grpo: the clip
# and the KL coefficient of SimpleRL-Zoo (arXiv 2503.18892). With the shipped recipe's 2 minibatches
# hardly a token would reach either clip.
PRESETS = {
    "shipped": RLConfig(),
    "dapo": RLConfig(num_steps=40, num_minibatches=8, max_rounds=4),
    "grpo": RLConfig(num_steps=40, num_minibatches=8, clip_high=0.2, kl_coefficient=1e-4),
}
