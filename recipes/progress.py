"""What every step measured: a Parquet table, a figure, and a line in the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from engine.system.files import write_whole
from evaluators.figures.saving import save
from evaluators.figures.style import draw_line, label_axes, label_panel, small_multiples, with_style

Metrics = dict[str, float | int | None]  # of one step; null where it had nothing to measure on

# Column: what it is, and its unit. A stage measures some of them.
MEANINGS: Mapping[str, str] = {
    "step": "training step, from 1",
    "reward": "mean reward of the responses that were sampled, 0 to 1",
    "informative": "share of groups whose rewards differ",
    "rounds": "times that a batch of prompts was sampled",
    "entropy": "mean of -log p of the sampled tokens, nats: the policy's entropy a token",
    "response_tokens": "mean length of a response, in tokens, its end included",
    "loss": "mean over the optimiser's steps",
    "gradient_norm": "before it is clipped, mean over the optimiser's steps",
    "clipped": "share of tokens whose gradient the clip has taken, mean over the optimiser's steps",
    "k3": (
        "estimate of KL(sampling policy || policy) before each optimiser step, nats a token, mean"
        " over all tokens"
    ),
    "k3_p99": "its 99th percentile over tokens",
    "kl_base": "estimate of KL(policy || base), nats a token",
    "weight_mean": "mean weight of an advantage",
    "weight_min": "smallest weight of an advantage",
    "weight_max": "largest weight of an advantage",
    "learning_rate": "of this step",
    "sampling_seconds": "of sampling and grading, seconds",
    "seconds": "of the whole step, seconds",
}
_COUNTS = {"step", "rounds"}
_NOT_DRAWN = {"step", "rounds", "weight_min", "weight_max", "sampling_seconds"}


def write_metrics(folder: Path, rows: Sequence[Metrics]) -> None:
    """metrics.parquet: a row a step, with each column's meaning in its field's metadata."""
    fields = [
        pa.field(
            name,
            pa.int64() if name in _COUNTS else pa.float64(),
            metadata={"meaning": MEANINGS[name]},
        )
        for name in rows[0]
    ]
    table = pa.Table.from_pylist(list(rows), pa.schema(fields))
    write_whole(folder / "metrics.parquet", lambda file: pq.write_table(table, file))


def as_line(rows: Sequence[Metrics]) -> str:
    """The last step's number, and the means of what says how it goes over these rows."""
    shown = [
        name
        for name in ("reward", "loss", "entropy", "k3", "weight_max", "seconds")
        if name in rows[-1]
    ]
    means = {name: _mean([row[name] for row in rows]) for name in shown}
    return f"step {rows[-1]['step']}  " + "  ".join(
        f"{name} {mean:.4g}" for name, mean in means.items()
    )


def _mean(values: Sequence[float | int | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else float("nan")


def draw_metrics(folder: Path) -> None:
    """metrics.png and metrics.svg of the folder's metrics.parquet: a panel a column, against the
    step.
    """
    save(_panels(pq.read_table(folder / "metrics.parquet")), folder, "metrics")


@with_style
def _panels(table: pa.Table) -> Figure:
    names = [
        name
        for name in table.column_names
        if name not in _NOT_DRAWN and table[name].null_count < table.num_rows
    ]
    figure, places = small_multiples(len(names), 1.5, 3, share_y=False)
    for axes, name in zip(places, names, strict=True):
        draw_line(axes, *(table[column].cast(pa.float64()).to_numpy() for column in ("step", name)))
        label_panel(axes, name.replace("_", " "))
    label_axes(figure, "training step", "")
    return figure
