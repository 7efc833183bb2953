"""Responses of the policy that is trained, in groups of one prompt, with their rewards and
advantages.

The reward is the project's own verdict on the boxed answer; nothing here knows of steps, carries or
guesses.
"""

import random
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

from evaluators.grading.comparators import compare_integers
from evaluators.grading.extraction import extract
from evaluators.tasks.arithmetic import draw_training, solve
from recipes.corpus import prompt
from recipes.model import sample
from recipes.objective import group_advantages


@dataclass(frozen=True, slots=True)
class Rollout:
    ids: list[int]
    num_prompt_tokens: int
    logp: list[float]  # of the response tokens, under the policy that sampled them
    reward: float
    advantage: float


Group = list[Rollout]  # all of one prompt


def draw_prompts(rng: random.Random, num_prompts: int) -> list[str]:
    """Training expressions, half with two operations and half with three."""
    return [draw_training(rng, num_operations=2 + index % 2) for index in range(num_prompts)]


def reward(text: str, expression: str) -> float:
    """1 if the answer that the response commits to is the exact result, otherwise 0."""
    answer = extract(text).answer
    if answer is None:
        return 0.0
    return float(compare_integers(str(solve(expression)), answer) == "correct")


def roll_out(
    model: Qwen2ForCausalLM,
    tokenizer: Tokenizer,
    expressions: list[str],
    group_size: int,
    generator: torch.Generator,
) -> list[Group]:
    """A group of responses to every expression. Prompts of one length are sampled together."""
    groups = []
    for same_length in by_length(expressions):
        prompts = [
            encoded.ids for encoded in tokenizer.encode_batch([prompt(e) for e in same_length])
        ]
        repeated = torch.tensor(prompts).repeat_interleave(group_size, dim=0)
        responses, logps = sample(model, repeated, generator)
        texts = tokenizer.decode_batch(responses)
        for index, expression in enumerate(same_length):
            rows = range(index * group_size, (index + 1) * group_size)
            rewards = [reward(texts[row], expression) for row in rows]
            advantages = group_advantages(torch.tensor(rewards)).tolist()
            groups.append(
                [
                    Rollout(
                        prompts[index] + responses[row],
                        len(prompts[index]),
                        logps[row],
                        rewarded,
                        advantage,
                    )
                    for row, rewarded, advantage in zip(rows, rewards, advantages, strict=True)
                ]
            )
    return groups


def by_length(expressions: list[str]) -> list[list[str]]:
    """Expressions of one length together, in their order: every digit is a token, so their prompts
    need no padding.
    """
    found: dict[int, list[str]] = {}
    for expression in expressions:
        found.setdefault(len(expression), []).append(expression)
    return list(found.values())


def is_informative(group: Group) -> bool:
    """Whether its rewards differ: otherwise every advantage is 0, and there is nothing to learn
    from it.
    """
    return any(rollout.advantage != 0 for rollout in group)
