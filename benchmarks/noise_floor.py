"""How far apart are two engines of the same model? The divergence that is noise on a device.

    python -m benchmarks.noise_floor [--model FOLDER] [--dtype bfloat16] [--slots 64] [--device
    cpu|cuda] [--json FILE]

Base against base: both engines of the pair load one model, and every position of plain responses is
measured by both. Exact arithmetic would give a divergence of 0 everywhere. Each round is a run of
its own with another seed.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

import xsample
from benchmarks.result import Result, options, spread, spreads_table
from engine.models.pair_info import TINY_PAIR
from engine.system.machine import visible_gpus

_HIGH = 0.1  # nats, "high divergence" of arXiv 2603.22446


def main() -> None:
    """Make the runs, print the divergences."""
    parser = options(__doc__, rounds=1)
    parser.add_argument("--model", type=Path, default=TINY_PAIR / "rl")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--slots", type=int, default=64, help="sequences in flight")
    parser.add_argument("--limit", type=int, default=16, help="problems")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    chosen = parser.parse_args()
    measured: dict[str, list[float]] = defaultdict(list)
    for seed in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as folder:
            config = xsample.load_config(
                base=str(chosen.model),
                rl=str(chosen.model),
                dtype=chosen.dtype,
                device=chosen.device,
                share_gpu=chosen.device == "cuda" and len(visible_gpus()) == 1,
                max_num_seqs=chosen.slots,
                direction="reverse",
                budget=0,
                trace="full",
                samples=4,
                limit=chosen.limit,
                seed=seed,
                out=f"{folder}/run",
            )
            for name, value in _divergence(xsample.run(config)).items():
                measured[name].append(value)
    settings = {name: str(value) for name, value in vars(chosen).items() if name != "json"}
    result = Result(
        "noise floor", settings, {name: spread(values) for name, values in measured.items()}
    )
    result.publish([spreads_table("base against base", result.measured, ".3g")], chosen.json)


def _divergence(run: xsample.Run) -> dict[str, float]:
    js = run.tokens(["js"])["js"].drop_null()
    numbers = js.to_numpy().astype(np.float64)
    return {
        "positions": float(len(numbers)),
        "mean js, nats": float(numbers.mean()),
        "largest js, nats": float(numbers.max()),
        "share of js > 0": float((numbers > 0).mean()),
        f"share of js > {_HIGH:g}": float(pc.mean(pc.greater(js, _HIGH)).as_py()),
    }


if __name__ == "__main__":
    main()
