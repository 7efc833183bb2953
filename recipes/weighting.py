"""Does it help to weight advantages by divergence? DAPO against both signs of alpha, several seeds
each.

    python -m recipes.train weighting --out DIR --seeds 5

Each training starts from the shipped base; arms of one seed see the same problems and the same
noise until their weights part. What is compared was fixed before any arm was run: the accuracy at
step 8, where DAPO is on its way, and its mean over all evaluations. Intervals are Student's t over
seeds, those of differences over pairs of one seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.arrays import Floats
from engine.system.files import read_json, write_json, write_whole
from evaluators.scores.bootstrap import student_quantile
from recipes.evaluate import held_out_accuracy
from recipes.model import load_model, load_tokenizer
from recipes.rl_config import PRESETS, RLConfig
from recipes.stages import SHIPPED_BASE, train_rl

# KL_t of the formula is below 2e-5 nats at nine of ten tokens and 3e-4 to 6e-3 at the 99th
# percentile (seed 0 of DAPO, steps 4 and 8): only with an alpha of this size do the weights of
# tokens that moved leave 1.
ALPHA = 10_000.0
DAPO = replace(PRESETS["dapo"], num_steps=12)  # later the arms come near 1 and can differ no more
ARMS: Mapping[str, RLConfig] = {
    "dapo": DAPO,
    "low-KL": replace(DAPO, alpha=-ALPHA),
    "high-KL": replace(DAPO, alpha=ALPHA),
}
EVERY = 4  # steps between evaluations
NUM_SAMPLES = 4  # a problem
MODES = ("sampled", "greedy")
Row = dict[str, float | str]  # arm, seed, step, and the accuracy in each mode


class Interval(NamedTuple):
    mean: float
    low: float
    high: float


def run_seed(out: Path, arm: str, seed: int) -> list[dict[str, float]]:
    """Train and evaluate, or read what was found before: a row a checkpoint with step, sampled and
    greedy.
    """
    folder = out / arm / f"seed-{seed}"
    found = folder / "accuracy.json"
    train_rl(SHIPPED_BASE, folder, ARMS[arm], seed, EVERY)
    if not found.exists():
        steps = range(EVERY, ARMS[arm].num_steps + 1, EVERY)
        write_json(
            found,
            {"rows": [{"step": step, **evaluate(folder / f"checkpoint-{step}")} for step in steps]},
        )
    rows: list[dict[str, float]] = read_json(found)["rows"]
    return rows


def evaluate(checkpoint: Path) -> dict[str, float]:
    """Accuracy on the held-out problems, sampled with the same seed for all, and greedy."""
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    sampled = held_out_accuracy(model, tokenizer, NUM_SAMPLES, torch.Generator().manual_seed(0))
    return {"sampled": sampled, "greedy": held_out_accuracy(model, tokenizer)}


def interval(values: Floats) -> Interval:
    """Mean of one value a seed, at least five, with its 95 % interval of Student's t."""
    mean = float(values.mean())
    half = student_quantile(0.975, len(values) - 1) * float(values.std(ddof=1)) / len(values) ** 0.5
    return Interval(mean, mean - half, mean + half)


def lines(rows: Sequence[Row]) -> list[str]:
    """A table a mode: each arm's accuracy at each step and its mean over them, and the differences
    from dapo.
    """
    found = [
        f"{'':18}" + "".join(f"{label:>22}" for label in ("mean of all", *map(str, _steps(rows))))
    ]
    for mode in MODES:
        scores = {arm: _scores(rows, arm, mode) for arm in ARMS}
        found += [_line(f"{mode} {arm}", scores[arm]) for arm in ARMS]
        found += [
            _line(f"{arm} - dapo", scores[arm] - scores["dapo"]) for arm in ARMS if arm != "dapo"
        ]
    return found


def _steps(rows: Sequence[Row]) -> list[int]:
    return sorted({int(row["step"]) for row in rows})


def _scores(rows: Sequence[Row], arm: str, mode: str) -> Floats:
    """[seeds, 1 + steps], the mean over the steps first."""
    of_arm = sorted(
        (row for row in rows if row["arm"] == arm), key=lambda row: (row["seed"], row["step"])
    )
    by_step = np.array([row[mode] for row in of_arm], dtype=np.float64).reshape(
        -1, len(_steps(rows))
    )
    return np.hstack([by_step.mean(axis=1, keepdims=True), by_step])


def _line(label: str, scores: Floats) -> str:
    cells = ("{:.3f} ({:.3f} {:.3f})".format(*interval(column)) for column in scores.T)
    return f"{label:18}" + "".join(f"{cell:>22}" for cell in cells)


def compare(out: Path, num_seeds: int) -> list[str]:
    """Train and evaluate all that is not there; accuracy.parquet and the table's lines."""
    rows: list[Row] = [
        {"arm": arm, "seed": seed, **row}
        for seed in range(num_seeds)
        for arm in ARMS
        for row in run_seed(out, arm, seed)
    ]
    table = pa.Table.from_pylist(rows)
    write_whole(out / "accuracy.parquet", lambda file: pq.write_table(table, file))
    return lines(rows)
