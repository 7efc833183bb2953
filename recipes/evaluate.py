"""Accuracy on the held-out problems of the embedded task, by plain sampling."""

from statistics import fmean

import torch
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

from evaluators.tasks.arithmetic import load
from recipes.corpus import prompt
from recipes.model import sample
from recipes.rollout import by_length, reward


def held_out_accuracy(
    model: Qwen2ForCausalLM,
    tokenizer: Tokenizer,
    num_samples: int = 1,
    generator: torch.Generator | None = None,
) -> float:
    """Share of right answers to the 200 problems, at temperature 1 and top-p 1, or greedily without
    a generator.
    """
    rewards: list[float] = []
    for expressions in by_length(
        [problem.question.removesuffix("=?") for problem in load()] * num_samples
    ):
        prompts = torch.tensor(
            [encoded.ids for encoded in tokenizer.encode_batch([prompt(e) for e in expressions])]
        )
        responses, _ = sample(model, prompts, generator)
        rewards += map(reward, tokenizer.decode_batch(responses), expressions)
    return fmean(rewards)
