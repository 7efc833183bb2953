"""Train the models of the embedded task: `python -m recipes.train STAGE --out DIR`.

pair       both models of the tiny pair from random weights: DIR/base and DIR/rl
pretrain   the base model
sft, rl    from a base model, by default the shipped one
analyses   the models that the comparisons need, in a cache folder, those that are not there
weighting  the experiment with divergence-weighted advantages
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from transformers.utils.logging import disable_progress_bar

from engine.system.signals import sigterm_like_ctrl_c
from recipes import weighting
from recipes.pretrain import PRETRAINING
from recipes.progress import draw_metrics
from recipes.rl_config import PRESETS
from recipes.sft import SFT
from recipes.stages import (
    SHIPPED_BASE,
    cache_folder,
    train_base,
    train_for_analyses,
    train_pair,
    train_rl,
    train_sft,
)
from xsample.cli.shell import Commands, debug_option


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True}
)
@debug_option
def commands() -> None:
    """Train the models of the embedded task, on one thread. The same command goes on where it was
    interrupted.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()


out_option = click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
seed_option = click.option("--seed", type=int, default=0)
base_option = click.option(
    "--base", type=click.Path(path_type=Path), default=SHIPPED_BASE, help="model folder"
)
every_option = click.option("--checkpoint-every", type=click.IntRange(1), default=10, help="steps")


@commands.command("pair")
@out_option
@seed_option
@debug_option
def pair_command(out: Path, seed: int) -> None:
    """Both models of the tiny pair, from random weights: OUT/base and OUT/rl."""
    train_pair(out, PRETRAINING, PRESETS["shipped"], seed)
    for stage in ("pretrain", "rl"):
        draw_metrics(out / "training" / stage)


@commands.command("pretrain")
@out_option
@seed_option
@debug_option
def pretrain_command(out: Path, seed: int) -> None:
    """The base model, from random weights."""
    train_base(out, PRETRAINING, seed)
    draw_metrics(out)


@commands.command("sft")
@base_option
@out_option
@seed_option
@click.option("--steps", type=click.IntRange(1), default=SFT.num_steps)
@click.option("--checkpoint-every", type=click.IntRange(1), default=100, help="steps")
@debug_option
def sft_command(base: Path, out: Path, seed: int, steps: int, checkpoint_every: int) -> None:
    """Supervised fine-tuning on correct answers."""
    train_sft(base, out, replace(SFT, num_steps=steps), seed, checkpoint_every)
    draw_metrics(out)


@commands.command("rl")
@base_option
@out_option
@seed_option
@click.option("--preset", type=click.Choice(list(PRESETS)), default="dapo")
@click.option("--steps", "num_steps", type=int, help="rollouts")
@click.option("--minibatches", "num_minibatches", type=int, help="optimiser steps a rollout")
@click.option("--clip-high", type=float)
@click.option(
    "--alpha",
    type=float,
    help="divergence weighting: above 0 tokens that moved weigh more, below 0 less",
)
@click.option("--rarity", type=float, help="improbable tokens weigh up to 1 + RARITY")
@click.option("--learning-rate", type=float)
@every_option
@debug_option
def rl_command(
    base: Path, out: Path, seed: int, preset: str, checkpoint_every: int, **changed: Any
) -> None:
    """Reinforcement learning with a verifiable reward. An option that is not given is the
    preset's.
    """
    given = {name: value for name, value in changed.items() if value is not None}
    train_rl(base, out, replace(PRESETS[preset], **given), seed, checkpoint_every)
    draw_metrics(out)


@commands.command("analyses")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="[default: a folder in the user's cache]",
)
@debug_option
def analyses_command(out: Path | None) -> None:
    """The models that the comparisons need; those that are there stay."""
    folder = out or cache_folder()
    for trained in train_for_analyses(folder):
        draw_metrics(trained)
    click.echo(f"the models are in {folder}")


@commands.command("weighting")
@out_option
@click.option("--seeds", type=click.IntRange(5), default=5)
@debug_option
def weighting_command(out: Path, seeds: int) -> None:
    """DAPO against divergence-weighted advantages of both signs."""
    click.echo("\n".join(weighting.compare(out, seeds)))


if __name__ == "__main__":
    with sigterm_like_ctrl_c():
        commands(prog_name="python -m recipes.train")
