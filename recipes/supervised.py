"""Next-token prediction on worked answers, the loss on the answer only: what pre-training and SFT
share.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

from recipes.corpus import Style, draw_pair, prompt
from recipes.model import Batch, collate, log_probs
from recipes.progress import Metrics
from recipes.state import Learner, adam
from recipes.tokens import END_ID

BATCHES_SORTED_TOGETHER = 4


@dataclass(frozen=True, slots=True)
class SupervisedConfig:
    num_steps: int
    learning_rate: float
    style: Style  # of the writer of the answers
    batch_size: int = 32
    final_share: float = 0.02  # of the learning rate, reached at the last step
    num_warmup_steps: int = 100
    weight_decay: float = 0.01
    max_gradient: float = 1.0


class Supervised:
    """A stage of `training.train`: one batch of texts a step."""

    min_entropy = 0.0  # it samples nothing

    def __init__(
        self,
        model: Qwen2ForCausalLM,
        tokenizer: Tokenizer,
        config: SupervisedConfig,
        seed: int,
        start: dict[str, Any],
    ) -> None:
        """`start` says what the model was before, in JSON's types."""
        self.num_steps = config.num_steps
        self.learner = Learner(
            model,
            adam(model, config.learning_rate, config.weight_decay),
            random.Random(seed),
            torch.Generator().manual_seed(seed),
        )
        self._config, self._described = config, {**start, **asdict(config), "seed": seed}
        self._texts = corpus_batches(
            tokenizer, config.style, config.batch_size, random.Random(seed)
        )
        self._num_read = 0

    def describe(self) -> dict[str, Any]:
        return self._described

    def step(self, number: int) -> Metrics:
        batch = next(
            islice(self._texts, number - 1 - self._num_read, None)
        )  # after a resume, those before are skipped
        self._num_read = number
        share = learning_rate_share(number - 1, self._config)
        for group in self.learner.optimizer.param_groups:
            group["lr"] = self._config.learning_rate * share
        loss = -log_probs(self.learner.model, batch.ids)[batch.is_response[:, 1:]].mean()
        self.learner.optimizer.zero_grad()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(
            self.learner.model.parameters(), self._config.max_gradient
        )
        self.learner.optimizer.step()
        rate = self._config.learning_rate * share
        return {"loss": loss.item(), "gradient_norm": norm.item(), "learning_rate": rate}


def corpus_batches(
    tokenizer: Tokenizer, style: Style, batch_size: int, rng: random.Random
) -> Iterator[Batch]:
    """Endless batches of prompt and answer, of similar lengths inside a batch to save padding."""
    while True:
        pairs = [draw_pair(rng, style) for _ in range(batch_size * BATCHES_SORTED_TOGETHER)]
        prompts = tokenizer.encode_batch([prompt(expression) for expression, _ in pairs])
        answers = tokenizer.encode_batch([answer for _, answer in pairs])
        sequences = [
            (p.ids + a.ids + [END_ID], len(p.ids)) for p, a in zip(prompts, answers, strict=True)
        ]
        sequences.sort(key=lambda sequence: len(sequence[0]))
        starts = list(range(0, len(sequences), batch_size))
        rng.shuffle(starts)
        for start in starts:
            yield collate(sequences[start : start + batch_size])


def learning_rate_share(step: int, config: SupervisedConfig) -> float:
    """Linear warm-up, then a cosine to `final_share`."""
    if step < config.num_warmup_steps:
        return (step + 1) / config.num_warmup_steps
    progress = min(
        1.0, (step - config.num_warmup_steps) / max(1, config.num_steps - config.num_warmup_steps)
    )
    return config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * progress)) / 2
