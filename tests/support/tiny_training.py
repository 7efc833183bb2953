"""RL trainings of a few steps of the embedded base model, and one that is hit by a signal."""

from __future__ import annotations

import signal
from pathlib import Path

import torch

from recipes.model import load_tokenizer
from recipes.progress import Metrics
from recipes.rl_config import RLConfig
from recipes.rlvr import RLVR
from recipes.stages import SHIPPED_BASE
from recipes.training import Saving, train

TINY = RLConfig(num_steps=4, num_prompts=2, group_size=4, max_rounds=2)


class Interrupted(RLVR):
    """An RL stage to which a signal comes in step 4; its state was saved after step 2."""

    signal_number = signal.SIGINT

    def step(self, number: int) -> Metrics:
        """Step `number`."""
        if number == 4:
            signal.raise_signal(self.signal_number)
        return super().step(number)


class Killed(Interrupted):
    """An RL stage whose process is killed in step 4."""

    signal_number = signal.SIGKILL


def rl_stage(kind: type[RLVR] = RLVR, config: RLConfig = TINY, seed: int = 0) -> RLVR:
    """A stage that is about to begin."""
    return kind(SHIPPED_BASE, load_tokenizer(SHIPPED_BASE), config, seed)


def saving(out: Path) -> Saving:
    """A checkpoint every second step."""
    return Saving(out, SHIPPED_BASE, every=2)


def train_until_killed(out: str) -> None:
    """What a process does that is killed, with one thread as the commands have."""
    torch.set_num_threads(1)
    train(rl_stage(Killed), saving(Path(out)))
