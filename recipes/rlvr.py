"""RLVR: group-relative policy gradients on a reward that checks the boxed answer, from the base
model.

A step samples groups of responses, and makes a few optimiser steps on those whose rewards differ.
"""

import random
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tokenizers import Tokenizer

from recipes.model import fingerprint, load_model
from recipes.progress import Metrics
from recipes.rl_config import RLConfig
from recipes.rollout import Group, draw_prompts, is_informative, roll_out
from recipes.state import Learner, adam
from recipes.update import summary, update


class RLVR:
    """A stage of `training.train`."""

    def __init__(self, base: Path, tokenizer: Tokenizer, config: RLConfig, seed: int) -> None:
        self.num_steps, self.min_entropy = config.num_steps, config.min_entropy
        model = load_model(base)
        self.learner = Learner(
            model,
            adam(model, config.learning_rate, weight_decay=0.0),
            random.Random(f"rlvr {seed}"),
            torch.Generator().manual_seed(seed),
        )
        self._base = load_model(base).requires_grad_(False) if config.kl_coefficient else None
        self._tokenizer, self._config = tokenizer, config
        self._described = {"stage": "rl", "base": fingerprint(base), **asdict(config), "seed": seed}

    def describe(self) -> dict[str, Any]:
        return self._described

    def step(self, number: int) -> Metrics:
        started = time.perf_counter()
        rounds = self._sample_rounds()
        sampling_seconds = time.perf_counter() - started
        groups = [group for groups in rounds for group in groups if is_informative(group)]
        rollouts = [rollout for group in groups for rollout in group]
        self.learner.rng.shuffle(rollouts)
        num_minibatches = self._config.num_minibatches
        minibatches = [rollouts[start::num_minibatches] for start in range(num_minibatches)]
        updates = [
            update(self.learner, self._base, minibatch, self._config)
            for minibatch in minibatches
            if minibatch
        ]
        return {**_sampled(rounds), **summary(updates), "sampling_seconds": sampling_seconds}

    def _sample_rounds(self) -> list[list[Group]]:
        """Groups of fresh prompts; for each of equal rewards another prompt, until `max_rounds` are
        over.
        """
        rounds: list[list[Group]] = []
        learner, config = self.learner, self._config
        num_missing = config.num_prompts
        while num_missing and len(rounds) < config.max_rounds:
            prompts = draw_prompts(learner.rng, num_missing)
            rounds.append(
                roll_out(
                    learner.model, self._tokenizer, prompts, config.group_size, learner.generator
                )
            )
            num_missing -= sum(map(is_informative, rounds[-1]))
        return rounds


def _sampled(rounds: list[list[Group]]) -> Metrics:
    groups = [group for groups in rounds for group in groups]
    rollouts = [rollout for group in groups for rollout in group]
    return {
        "reward": fmean(rollout.reward for rollout in rollouts),
        "informative": fmean(is_informative(group) for group in groups),
        "rounds": len(rounds),
        "entropy": -fmean(logp for rollout in rollouts for logp in rollout.logp),
        "response_tokens": fmean(len(rollout.logp) for rollout in rollouts),
    }
