"""The loop that all stages share: step, look whether it is healthy, save, go on after an
interruption.

OUT/checkpoint-10, checkpoint-20, ...   the model, ordinary Hugging Face folders
OUT/state.safetensors                   all that the next step needs (state.py)
OUT/metrics.parquet, metrics.png, .svg  what every step measured (progress.py)
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import click
from safetensors import SafetensorError
from transformers import Qwen2ForCausalLM

from engine.errors import ConfigError, StoreError
from engine.system.files import reason
from engine.system.signals import HeldSignals, Interrupted, Stopped
from recipes.health import check_health
from recipes.model import save_model
from recipes.progress import Metrics, as_line, write_metrics
from recipes.state import Learner, load_state, save_state


class Stage(Protocol):
    """A kind of training. What it carries from step to step is in `learner`."""

    learner: Learner
    num_steps: int
    min_entropy: float  # nats a token; below it the policy counts as collapsed

    def describe(self) -> dict[str, Any]:
        """The whole configuration in JSON's types: another one is another training."""
        ...

    def step(self, number: int) -> Metrics:
        """Step `number`, from 1."""
        ...


@dataclass(frozen=True, slots=True)
class Saving:
    """Where a training goes, and how often."""

    out: Path
    tokenizer_from: Path
    every: int = 10  # steps between checkpoints; the last step has one in any case


def train(stage: Stage, saving: Saving) -> Path:
    """All steps, from the last saved one on; the folder of the last checkpoint.

    Raises TrainingError where the training has diverged, ConfigError where `out` holds one with
    another configuration, and Stopped after Ctrl-C or SIGTERM, with the state saved.
    """
    _make_folder(saving.out)
    rows = load_state(_state_file(saving), stage.learner, stage.describe())
    if rows:
        click.echo(f"{saving.out}: {len(rows)} of {stage.num_steps} steps are there")
    try:
        with HeldSignals() as held:
            _run(stage, saving, rows, held)
    except KeyboardInterrupt as stop:
        raise Stopped(
            f"stopped after step {len(rows)}; the same command goes on from there", stop
        ) from stop
    write_metrics(saving.out, rows)
    return saving.out / f"checkpoint-{stage.num_steps}"


def _run(stage: Stage, saving: Saving, rows: list[Metrics], held: HeldSignals) -> None:
    try:
        while len(rows) < stage.num_steps:
            rows.append(_timed_step(stage, len(rows) + 1))
            check_health(rows[-1], stage.min_entropy)
            if len(rows) % saving.every == 0 or len(rows) == stage.num_steps:
                _save_checkpoint(stage.learner.model, saving, len(rows))
                save_state(_state_file(saving), stage.learner, stage.describe(), rows)
                click.echo(as_line(rows[-saving.every :]))
            held.check()
    except Interrupted:
        save_state(_state_file(saving), stage.learner, stage.describe(), rows)
        raise


def _timed_step(stage: Stage, number: int) -> Metrics:
    started = time.perf_counter()
    measured = stage.step(number)
    return {"step": number, **measured, "seconds": time.perf_counter() - started}


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out {folder} cannot be used: {reason(error)}; give another folder"
        ) from None


def _save_checkpoint(model: Qwen2ForCausalLM, saving: Saving, step: int) -> None:
    """Whole under its name or not there: it is written beside it and renamed."""
    target, unfinished = saving.out / f"checkpoint-{step}", saving.out / f".checkpoint-{step}.tmp"
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        save_model(model, unfinished, saving.tokenizer_from)
        shutil.rmtree(
            target, ignore_errors=True
        )  # of a training that was killed before it had saved its state
        unfinished.rename(target)
    except (OSError, SafetensorError) as error:
        raise StoreError(
            f"{target} cannot be written: {reason(error)}; mend that and run the same command again"
        ) from error


def _state_file(saving: Saving) -> Path:
    return saving.out / "state.safetensors"
