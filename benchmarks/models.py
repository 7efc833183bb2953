"""Pairs of Qwen2 models with random weights in bfloat16, made on the spot: what a forward pass of
real size costs.

    python -m benchmarks.models 50m|500m [--folder FOLDER]

Nothing is known to such a pair, but its work is that of a real one: layers, vocabulary and caches
have their sizes, and its next-token distributions their look. Logits of random weights are nearly
normal, N(0, s^2), and almost all mass is on few of V tokens once s is above sqrt(2 ln V), as in the
random energy model: the final norm is scaled to that. The "rl" model is the base with a little
noise on every matrix, so that the two mostly agree.
"""

from __future__ import annotations

import argparse
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
_RECIPE = 1  # another number where `_write` makes other models of the same shape
SEED = 0


@dataclass(frozen=True)
class Shape:
    """A model's size; heads hold hidden_size / num_attention_heads numbers each. The embedding is
    tied.

    sharpness: standard deviation of the logits over the one at which few tokens hold most of the
    mass. noise: standard deviation of what the rl model's weights have more than the base's, over
    theirs.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int = 2048
    sharpness: float = 2.5
    noise: float = 0.002


# 500m is Qwen2.5-0.5B's.
SHAPES: Mapping[str, Shape] = {
    "50m": Shape(32_000, 512, 1408, 12, 8, 2),
    "500m": Shape(151_936, 896, 4864, 24, 14, 2),
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
    sharpness, noise = size.pop("sharpness"), size.pop("noise")
    config = Qwen2Config(**size, tie_word_embeddings=True)
    generator = torch.Generator().manual_seed(SEED)
    model: Any = Qwen2ForCausalLM._from_config(config, dtype=torch.bfloat16)
    matrices = {name: weight for name, weight in model.named_parameters() if weight.dim() == 2}
    deviations = {weight: _deviation(name, weight.shape[1]) for name, weight in matrices.items()}
    for weight, deviation in deviations.items():
        weight.data.normal_(0, deviation, generator=generator)
    of_a_logit = EMBEDDING * math.sqrt(shape.hidden_size)
    model.model.norm.weight.data.fill_(
        sharpness * math.sqrt(2 * math.log(shape.vocab_size)) / of_a_logit
    )
    model.save_pretrained(folder / "base")
    for weight, deviation in deviations.items():
        weight.data += torch.empty_like(weight).normal_(0, noise * deviation, generator=generator)
    model.save_pretrained(folder / "rl")


def _deviation(name: str, num_inputs: int) -> float:
    """Of a matrix, so that its outputs are as large as its inputs."""
    return EMBEDDING if "embed" in name else num_inputs**-0.5


def num_parameters(model: Path) -> int:
    """Of a model folder."""
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def main() -> None:
    """Make a pair, and say where it is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=sorted(SHAPES))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    pair = random_pair(options.name, options.folder)
    for model in (pair.base, pair.rl):
        print(f"{model}: {num_parameters(model):,} parameters")


if __name__ == "__main__":
    main()
