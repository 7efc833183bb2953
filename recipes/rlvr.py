"""Stage two, the RL model: group-relative policy gradients on a reward that checks the boxed answer.

Nothing here knows of steps, carries or guesses: the reward is 1 for the right number and 0 otherwise.
"""

import random
import re
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2ForCausalLM

from evaluators.tasks.arithmetic import draw_training, solve
from recipes.corpus import prompt
from recipes.model import collate, log_probs, sample

_BOXED = re.compile(r"\\boxed\{(-?\d+)\}")


@dataclass(frozen=True, slots=True)
class RLConfig:
    num_steps: int = 80
    num_prompts: int = 32
    group_size: int = 8
    num_minibatches: int = 2  # optimiser steps a rollout
    learning_rate: float = 1e-4
    clip_low: float = 0.2
    clip_high: float = 0.28
    max_gradient: float = 1.0
    report_every: int = 5


@dataclass(frozen=True, slots=True)
class Rollout:
    ids: list[int]
    num_prompt_tokens: int
    logp: list[float]  # of the response tokens, under the policy that sampled them
    reward: float
    advantage: float


def train_rlvr(model: Qwen2ForCausalLM, tokenizer: Tokenizer, config: RLConfig, seed: int) -> None:
    """Train the model in place."""
    rng, generator = random.Random(f"rlvr {seed}"), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    rewards: list[float] = []
    for step in range(1, config.num_steps + 1):
        rollouts = roll_out(model, tokenizer, draw_prompts(rng, config.num_prompts), config.group_size, generator)
        rewards += [rollout.reward for rollout in rollouts]
        informative = [rollout for rollout in rollouts if rollout.advantage != 0]
        rng.shuffle(informative)
        for start in range(config.num_minibatches):
            if minibatch := informative[start :: config.num_minibatches]:
                update(model, optimizer, minibatch, config)
        if step % config.report_every == 0:
            print(f"rlvr step {step} reward {sum(rewards) / len(rewards):.3f}", flush=True)
            rewards.clear()


def draw_prompts(rng: random.Random, num_prompts: int) -> list[str]:
    """Training expressions, half with two operations and half with three."""
    return [draw_training(rng, num_operations=2 + index % 2) for index in range(num_prompts)]


def roll_out(
    model: Qwen2ForCausalLM, tokenizer: Tokenizer, expressions: list[str], group_size: int, generator: torch.Generator
) -> list[Rollout]:
    """A group of responses to every expression. Prompts of one length are sampled together."""
    by_length: dict[int, list[str]] = {}
    for expression in expressions:
        by_length.setdefault(len(expression), []).append(expression)
    rollouts = []
    for same_length in by_length.values():
        prompts = [encoded.ids for encoded in tokenizer.encode_batch([prompt(e) for e in same_length])]
        repeated = torch.tensor(prompts).repeat_interleave(group_size, dim=0)
        responses, logps = sample(model, repeated, generator)
        texts = tokenizer.decode_batch(responses)
        for index, expression in enumerate(same_length):
            group = range(index * group_size, (index + 1) * group_size)
            rewards = [reward(texts[row], expression) for row in group]
            for row, value, advantage in zip(group, rewards, advantages(rewards), strict=True):
                ids = prompts[index] + responses[row]
                rollouts.append(Rollout(ids, len(prompts[index]), logps[row], value, advantage))
    return rollouts


def reward(text: str, expression: str) -> float:
    """1 if the last boxed integer is the exact result, otherwise 0."""
    boxed = _BOXED.findall(text)
    return float(bool(boxed) and int(boxed[-1]) == solve(expression))


def advantages(rewards: list[float]) -> list[float]:
    """Rewards standardised inside their group; zeros where all are equal."""
    values = torch.tensor(rewards)
    if values.max() == values.min():
        return [0.0] * len(rewards)
    standardised: list[float] = ((values - values.mean()) / values.std(correction=0)).tolist()
    return standardised


def update(
    model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, rollouts: list[Rollout], config: RLConfig
) -> None:
    """One step on the clipped objective, averaged over tokens."""
    batch = collate([(rollout.ids, rollout.num_prompt_tokens) for rollout in rollouts])
    is_response = batch.is_response[:, 1:]
    advantage = torch.tensor([rollout.advantage for rollout in rollouts])[:, None].expand_as(is_response)[is_response]
    logp_old = torch.tensor([logp for rollout in rollouts for logp in rollout.logp])
    logp = log_probs(model, batch.ids)[is_response]
    loss = clipped_loss(logp, logp_old, advantage, config)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient)
    optimizer.step()


def clipped_loss(logp: Tensor, logp_old: Tensor, advantage: Tensor, config: RLConfig) -> Tensor:
    ratio = (logp - logp_old).exp()
    clipped = ratio.clamp(1 - config.clip_low, 1 + config.clip_high)
    return -torch.minimum(ratio * advantage, clipped * advantage).mean()
