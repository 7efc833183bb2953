"""Pairs of Qwen2 models with random weights in bfloat16, made on the spot: what a forward pass of
real size costs.

    python -m benchmarks.models 50m|500m [--folder FOLDER]

Nothing is known to such a pair, but its work is that of a real one: layers, vocabulary and caches
have their sizes, and its next-token distributions their look. Logits of random weights are nearly
normal, N(0, s^2), and almost all mass is on few of V tokens once s is above sqrt(2 ln V), as in the
random energy model: the final norm is scaled to that. The "rl" model is the base with a little
noise on every matrix, so that the two mostly agree.

Large pairs are never written: their folders hold config.json alone, engines load them with
load_format dummy, and `fill` makes their weights on the device.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.store.manifest import digest_object

# Standard deviation of the embedding: so small beside what the layers add that a token does not
# follow itself.
EMBEDDING = 0.02
_RECIPE = 2  # another number where `_write` makes other models of the same shape
_SHAPE_FILE = "shape.json"
SEED = 0


@dataclass(frozen=True)
class Shape:
    """A model's size; heads hold hidden_size / num_attention_heads numbers each.

    sharpness: standard deviation of the logits over the one at which few tokens hold most of the
    mass. noise: standard deviation of what the rl model's weights have more than the base's, over
    theirs. on_disk: whether weights are written, else made where they are needed.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 2048
    tie_word_embeddings: bool = True
    on_disk: bool = True
    sharpness: float = 2.5
    noise: float = 0.002


# 500m, 7b and 32b are Qwen2.5's.
SHAPES: Mapping[str, Shape] = {
    "50m": Shape(32_000, 512, 1408, 12, 8, 2),
    "500m": Shape(151_936, 896, 4864, 24, 14, 2),
    "7b": Shape(152_064, 3584, 18_944, 28, 28, 4, tie_word_embeddings=False, on_disk=False),
    "32b": Shape(152_064, 5120, 27_648, 64, 40, 8, tie_word_embeddings=False, on_disk=False),
    # To rehearse the large ones.
    "1m": Shape(2000, 128, 384, 3, 4, 2, tie_word_embeddings=False, on_disk=False),
}


@dataclass(frozen=True)
class RandomPair:
    """Two model folders of one shape."""

    shape: Shape
    base: Path
    rl: Path


def default_folder() -> Path:
    """Where the models are kept between benchmarks."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "xsample" / "benchmarks"


def random_pair(name: str, folder: Path | None = None) -> RandomPair:
    """The pair of this name, made if it is not there."""
    return make_pair(SHAPES[name], (folder or default_folder()) / name)


def make_pair(shape: Shape, folder: Path) -> RandomPair:
    """The pair of this shape in `folder`, made if it is not there; another shape or noise makes
    another.
    """
    pair = folder / digest_object(asdict(shape) | {"recipe": _RECIPE})
    if not pair.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unfinished:
            _write(shape, Path(unfinished) / "pair")
            # Whoever makes the same pair at the same time makes the same files.
            if not pair.exists():
                (Path(unfinished) / "pair").rename(pair)
    return RandomPair(shape, pair / "base", pair / "rl")


def _write(shape: Shape, folder: Path) -> None:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    size = asdict(shape)
    for name in ("sharpness", "noise", "on_disk"):
        del size[name]
    config = Qwen2Config(**size, dtype="bfloat16", architectures=["Qwen2ForCausalLM"])
    if not shape.on_disk:
        for policy in ("base", "rl"):
            config.save_pretrained(folder / policy)
            (folder / policy / _SHAPE_FILE).write_text(json.dumps(asdict(shape)))
        return
    model: Any = Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16)
    fill(model, shape, "base")
    model.save_pretrained(folder / "base")
    fill(model, shape, "rl")
    model.save_pretrained(folder / "rl")


def read_shape(model: Path) -> Shape:
    """The shape of a model that is not on the disk."""
    return Shape(**json.loads((model / _SHAPE_FILE).read_text()))


def num_weights(shape: Shape) -> int:
    """Numbers in the matrices of a model."""
    head = shape.hidden_size // shape.num_attention_heads
    attention = 2 * shape.hidden_size * (shape.hidden_size + shape.num_key_value_heads * head)
    layer = attention + 3 * shape.hidden_size * shape.intermediate_size
    embeddings = (1 if shape.tie_word_embeddings else 2) * shape.vocab_size * shape.hidden_size
    return shape.num_hidden_layers * layer + embeddings


def fill(model: Any, shape: Shape, policy: str) -> None:
    """Give a model, of transformers or of vLLM, the random weights of a policy, where they are."""
    import torch

    weights = list(model.named_parameters())
    generator = torch.Generator(weights[0][1].device).manual_seed(SEED)
    for name, weight in weights:
        if weight.dim() == 1:
            weight.data.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        deviation = _deviation(name, weight.shape[1])
        weight.data.normal_(0, deviation, generator=generator)
        noise = torch.empty_like(weight.data).normal_(
            0, shape.noise * deviation, generator=generator
        )
        if policy == "rl":
            weight.data += noise
    of_a_logit = EMBEDDING * math.sqrt(shape.hidden_size)
    model.model.norm.weight.data.fill_(
        shape.sharpness * math.sqrt(2 * math.log(shape.vocab_size)) / of_a_logit
    )


def _deviation(name: str, num_inputs: int) -> float:
    """Of a matrix, so that its outputs are as large as its inputs."""
    return EMBEDDING if "embed" in name or "lm_head" in name else num_inputs**-0.5


def main() -> None:
    """Make a pair, and say where it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=sorted(SHAPES))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    pair = random_pair(options.name, options.folder)
    for model in (pair.base, pair.rl):
        print(f"{model}: {num_weights(pair.shape):,} parameters in matrices")


if __name__ == "__main__":
    main()
