"""The stages wired: where each starts from, where it goes, and the trainings that the comparisons
need.
"""

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

from recipes.corpus import Style, draw_pair, prompt
from recipes.model import MAX_POSITIONS, load_tokenizer
from recipes.pretrain import pretraining
from recipes.rl_config import PRESETS, RLConfig
from recipes.rlvr import RLVR
from recipes.sft import SFT, sft
from recipes.supervised import SupervisedConfig
from recipes.tokens import save_tokenizer, train_tokenizer
from recipes.training import Saving, train

SHIPPED_BASE = Path(__file__).parents[1] / "engine" / "tiny_pair" / "base"
NUM_TOKENIZER_TEXTS = 2000
PRETRAINING_SAVES_EVERY = 500  # steps
ANALYSED = {
    "clip-0.28": PRESETS["dapo"],
    "clip-0.2": replace(PRESETS["dapo"], clip_high=0.2),
    "grpo": PRESETS["grpo"],
}


def train_base(out: Path, config: SupervisedConfig, seed: int) -> Path:
    """Tokenizer and base model; the folder of the last checkpoint."""
    rng = random.Random(0)  # one tokenizer for all seeds
    pairs = [draw_pair(rng, Style()) for _ in range(NUM_TOKENIZER_TEXTS)]
    tokenizer = train_tokenizer(prompt(expression) + answer for expression, answer in pairs)
    save_tokenizer(tokenizer, out, MAX_POSITIONS)
    stage = pretraining(tokenizer, config, seed)
    return train(stage, Saving(out, tokenizer_from=out, every=PRETRAINING_SAVES_EVERY))


def train_rl(base: Path, out: Path, config: RLConfig, seed: int, every: int = 10) -> Path:
    """An RL model from the base model in a folder; the folder of the last checkpoint."""
    return train(RLVR(base, load_tokenizer(base), config, seed), Saving(out, base, every))


def train_sft(base: Path, out: Path, config: SupervisedConfig, seed: int, every: int = 100) -> Path:
    """An SFT model from the base model in a folder; the folder of the last checkpoint."""
    return train(sft(base, load_tokenizer(base), config, seed), Saving(out, base, every))


def train_pair(out: Path, base_config: SupervisedConfig, rl_config: RLConfig, seed: int) -> None:
    """out/base and out/rl; out/training holds what led there."""
    base = train_base(out / "training" / "pretrain", base_config, seed)
    shutil.copytree(base, out / "base", dirs_exist_ok=True)
    trained = train_rl(out / "base", out / "training" / "rl", rl_config, seed)
    shutil.copytree(trained, out / "rl", dirs_exist_ok=True)


def cache_folder() -> Path:
    """Where the models that the comparisons need are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xsample" / "recipes"


def train_for_analyses(out: Path) -> list[Path]:
    """SFT, both clips with all else equal, and GRPO with a KL term, all with seed 0; their
    folders.
    """
    train_sft(SHIPPED_BASE, out / "sft", SFT, seed=0)
    for name, config in ANALYSED.items():
        train_rl(SHIPPED_BASE, out / name, config, seed=0, every=4)
    return [out / name for name in ("sft", *ANALYSED)]
