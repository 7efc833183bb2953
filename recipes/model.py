"""The tiny Qwen2 of the pair: build, sample, batch, save. It knows nothing of either training
stage.

Shapes: B rows of a batch, P prompt tokens, R response tokens, T = P + R.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from engine.errors import ModelError
from recipes.tokens import END_ID, TOKENIZER_FILES, VOCAB_SIZE

MAX_POSITIONS = 256
MAX_RESPONSE = 200
MODEL_FILES = ("config.json", "model.safetensors")


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences padded on the right, which a causal model cannot see."""

    ids: Tensor  # [B, T] int64
    is_response: Tensor  # [B, T] bool: a response token, its end included


def build_model() -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END_ID,
        pad_token_id=END_ID,
    )
    return Qwen2ForCausalLM(config)


def collate(sequences: Sequence[tuple[list[int], int]]) -> Batch:
    """Pad (token ids, prompt length) pairs to one length."""
    width = max(len(ids) for ids, _ in sequences)
    padded = torch.full((len(sequences), width), END_ID)
    is_response = torch.zeros((len(sequences), width), dtype=torch.bool)
    for row, (ids, prompt_length) in enumerate(sequences):
        padded[row, : len(ids)] = torch.tensor(ids)
        is_response[row, prompt_length : len(ids)] = True
    return Batch(padded, is_response)


def log_probs(model: Qwen2ForCausalLM, ids: Tensor) -> Tensor:
    """Log-probability of every token but the first, [B, T - 1]."""
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    return -F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view_as(
        ids[:, 1:]
    )


@torch.no_grad()
def sample(
    model: Qwen2ForCausalLM, prompts: Tensor, generator: torch.Generator | None
) -> tuple[list[list[int]], list[list[float]]]:
    """Responses to prompts [B, P] at temperature 1, or greedily without a generator.

    Returns each row's tokens, the end token included, and their log-probabilities.
    """
    cache, inputs = DynamicCache(), prompts
    tokens: list[Tensor] = []
    scores: list[Tensor] = []
    is_done = torch.zeros(len(prompts), dtype=torch.bool)
    while not is_done.all() and len(tokens) < MAX_RESPONSE:
        logits = model(
            input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=1
        ).logits[:, -1]
        logp = logits.log_softmax(-1)
        inputs = logp.argmax(-1, keepdim=True) if generator is None else _draw(logp, generator)
        tokens.append(inputs[:, 0])
        scores.append(logp.gather(1, inputs)[:, 0])
        is_done |= tokens[-1] == END_ID
    rows = torch.stack(tokens, dim=1).tolist()
    lengths = [row.index(END_ID) + 1 if END_ID in row else len(row) for row in rows]
    score_rows = torch.stack(scores, dim=1).tolist()
    return _cut(rows, lengths), _cut(score_rows, lengths)


def _draw(logp: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(logp.exp(), 1, generator=generator)


def _cut(rows: list[list[Any]], lengths: list[int]) -> list[list[Any]]:
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def load_model(folder: Path) -> Qwen2ForCausalLM:
    """A model of the pair, in float32. Raises ModelError where the folder holds none of ours."""
    _check_folder(folder)
    model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    if model.config.vocab_size != VOCAB_SIZE:
        raise ModelError(
            f"{folder} has a vocabulary of {model.config.vocab_size}, not the tiny pair's"
            f" {VOCAB_SIZE}: the recipes train models of its kind only; give engine/tiny_pair/base"
        )
    return model


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model of the pair. Raises ModelError where the folder holds none."""
    _check_folder(folder)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _check_folder(folder: Path) -> None:
    missing = [name for name in (*MODEL_FILES, *TOKENIZER_FILES) if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder} holds no model to train: it has no {missing[0]}; give engine/tiny_pair/base"
        )


def fingerprint(folder: Path) -> str:
    """Of a model's weights: 16 hexadecimal digits."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def save_model(model: Qwen2ForCausalLM, folder: Path, tokenizer_from: Path | None = None) -> None:
    """Write an ordinary Hugging Face folder; the tokenizer's files are copied, never saved
    again.
    """
    ends = {"eos_token_id": END_ID, "pad_token_id": END_ID}
    model.generation_config = GenerationConfig.from_dict(ends)
    model.save_pretrained(folder)
    if tokenizer_from is not None:
        for name in TOKENIZER_FILES:
            shutil.copyfile(tokenizer_from / name, folder / name)
    for file in folder.iterdir():
        file.chmod(0o644)
