"""Make both models of the tiny pair: `python -m recipes.train --seed 0 --out DIR`.

Writes DIR/base and DIR/rl, ordinary Hugging Face folders. One thread, and deterministic on one machine.
"""

import argparse
import random
import time
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from recipes.corpus import Style, draw_pair, prompt
from recipes.model import MAX_POSITIONS, save_model
from recipes.pretrain import PretrainConfig, pretrain
from recipes.rlvr import RLConfig, train_rlvr
from recipes.tokens import save_tokenizer, train_tokenizer

NUM_TOKENIZER_TEXTS = 2000


def train_pair(out: Path, seed: int, style: Style, pretraining: PretrainConfig, rl: RLConfig) -> None:
    started = time.monotonic()
    rng = random.Random(0)  # one tokenizer for all seeds
    pairs = [draw_pair(rng, style) for _ in range(NUM_TOKENIZER_TEXTS)]
    tokenizer = train_tokenizer(prompt(expression) + answer for expression, answer in pairs)
    save_tokenizer(tokenizer, out / "base", MAX_POSITIONS)

    model = pretrain(tokenizer, style, pretraining, seed)
    save_model(model, out / "base")
    print(f"base saved after {time.monotonic() - started:.0f} s", flush=True)

    train_rlvr(model, tokenizer, rl, seed)
    save_model(model, out / "rl", tokenizer_from=out / "base")
    print(f"rl saved after {time.monotonic() - started:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tiny pair from scratch.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="folder for base/ and rl/")
    parser.add_argument("--pretrain-steps", type=int, default=PretrainConfig().num_steps)
    parser.add_argument("--rl-steps", type=int, default=RLConfig().num_steps)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()
    pretraining = PretrainConfig(num_steps=options.pretrain_steps)
    train_pair(options.out, options.seed, Style(), pretraining, RLConfig(num_steps=options.rl_steps))


if __name__ == "__main__":
    main()
