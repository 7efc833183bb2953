"""Stage one, the base model: next-token prediction on the mixed corpus, from random weights."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from transformers import Qwen2ForCausalLM

from recipes.corpus import Style, draw_pair, prompt
from recipes.model import Batch, build_model, collate, log_probs
from recipes.tokens import END_ID

BATCHES_SORTED_TOGETHER = 4


@dataclass(frozen=True, slots=True)
class PretrainConfig:
    num_steps: int = 2000
    batch_size: int = 32
    learning_rate: float = 2e-3
    final_share: float = 0.02  # of the learning rate, reached at the last step
    num_warmup_steps: int = 100
    max_gradient: float = 1.0
    report_every: int = 100


def pretrain(tokenizer: Tokenizer, style: Style, config: PretrainConfig, seed: int) -> Qwen2ForCausalLM:
    torch.manual_seed(seed)
    model = build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_share(step, config))
    batches = corpus_batches(tokenizer, style, config.batch_size, random.Random(seed))
    losses = []
    for step, batch in zip(range(1, config.num_steps + 1), batches, strict=False):
        loss = -log_probs(model, batch.ids)[batch.is_response[:, 1:]].mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_gradient)
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
        if step % config.report_every == 0:
            print(f"pretrain step {step} loss {sum(losses) / len(losses):.4f}", flush=True)
            losses.clear()
    return model


def corpus_batches(tokenizer: Tokenizer, style: Style, batch_size: int, rng: random.Random) -> Iterator[Batch]:
    """Endless batches of prompt and answer, of similar lengths inside a batch to save padding."""
    while True:
        pairs = [draw_pair(rng, style) for _ in range(batch_size * BATCHES_SORTED_TOGETHER)]
        prompts = tokenizer.encode_batch([prompt(expression) for expression, _ in pairs])
        answers = tokenizer.encode_batch([answer for _, answer in pairs])
        sequences = [(p.ids + a.ids + [END_ID], len(p.ids)) for p, a in zip(prompts, answers, strict=True)]
        sequences.sort(key=lambda sequence: len(sequence[0]))
        starts = list(range(0, len(sequences), batch_size))
        rng.shuffle(starts)
        for start in starts:
            yield collate(sequences[start : start + batch_size])


def learning_rate_share(step: int, config: PretrainConfig) -> float:
    """Linear warm-up, then a cosine to `final_share`."""
    if step < config.num_warmup_steps:
        return (step + 1) / config.num_warmup_steps
    progress = min(1.0, (step - config.num_warmup_steps) / max(1, config.num_steps - config.num_warmup_steps))
    return config.final_share + (1 - config.final_share) * (1 + math.cos(math.pi * progress)) / 2
