"""The whole state of a training in one file: tensors as safetensors, all else as JSON in its
header.

One file is replaced in one rename: a training that is killed at any moment goes on from its last
save, and comes to the same weights, bit for bit, as one that was left alone.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import Qwen2ForCausalLM

from engine.errors import ConfigError, StoreError
from engine.system.files import reason, write_whole
from recipes.progress import Metrics


@dataclass(frozen=True, slots=True)
class Learner:
    """All that a step of training changes."""

    model: Qwen2ForCausalLM
    optimizer: torch.optim.Optimizer
    rng: random.Random  # draws the problems
    generator: torch.Generator  # draws the tokens


def adam(
    model: Qwen2ForCausalLM, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=weight_decay
    )


def save_state(file: Path, learner: Learner, config: dict[str, Any], rows: list[Metrics]) -> None:
    """`config` is what the training is, `rows` what its steps measured, one a step. Raises
    StoreError.
    """
    tensors = {f"model.{name}": value.detach() for name, value in learner.model.named_parameters()}
    for place, moments in learner.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{place}.{name}": value for name, value in moments.items()}
    tensors["generator"] = learner.generator.get_state()
    header = {"config": config, "rows": rows, "rng": learner.rng.getstate()}
    content = save(tensors, {name: json.dumps(value) for name, value in header.items()})
    write_whole(file, lambda target: target.write(content))


def load_state(file: Path, learner: Learner, config: dict[str, Any]) -> list[Metrics]:
    """Put the learner where the saved one was; the rows of the steps that it has made, none where
    nothing is saved.

    Raises ConfigError for a training with another configuration, StoreError for a file that cannot
    be read.
    """
    if not file.exists():
        return []
    try:
        with safe_open(file, "pt") as opened:
            header = {name: json.loads(text) for name, text in opened.metadata().items()}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        _refuse_another(file.parent, header["config"], config)
        _restore(learner, tensors, header["rng"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise StoreError(
            f"{file} cannot be read: {reason(error)}; remove its folder to train from the start"
        ) from error
    rows: list[Metrics] = header["rows"]
    return rows


def _refuse_another(folder: Path, stored: dict[str, Any], config: dict[str, Any]) -> None:
    differing = [name for name in {**stored, **config} if stored.get(name) != config.get(name)]
    if differing:
        said = ", ".join(
            f"{name} was {stored.get(name)!r} and is {config.get(name)!r}" for name in differing
        )
        raise ConfigError(
            f"{folder} holds another training: {said}; give another --out, or remove the folder"
        )


def _restore(learner: Learner, tensors: dict[str, Tensor], rng: list[Any]) -> None:
    learner.generator.set_state(tensors.pop("generator"))
    version, internal, gauss = rng
    learner.rng.setstate((version, tuple(internal), gauss))
    moments: dict[int, dict[str, Tensor]] = {}
    with torch.no_grad():
        for name, parameter in learner.model.named_parameters():
            parameter.copy_(tensors.pop(f"model.{name}"))
    for key, value in tensors.items():
        _, place, name = key.split(".")
        moments.setdefault(int(place), {})[name] = value
    learner.optimizer.load_state_dict(learner.optimizer.state_dict() | {"state": moments})
