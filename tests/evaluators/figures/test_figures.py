"""Figures of the measurements: each draws what it is given, within the canvas, and never a
formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.types as pt
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from evaluators.figures import (
    accuracy,
    differences,
    entropy,
    evolution,
    identity,
    mechanics,
    position,
    robustness,
    sparsity,
    token_js,
)
from evaluators.figures.style import renderer, use_style
from tests.support import figure_tables as sample

Draw = Callable[..., Figure | None]
RUNS = (sample.RUNS[0], sample.RUNS[-1], "control")

# A figure: what draws it, the tables that it takes, and texts that must be in it.
FIGURES: dict[str, tuple[Draw, tuple[Callable[..., list[sample.Row]], ...], tuple[str, ...]]] = {
    "accuracy by budget": (
        accuracy.by_budget,
        (sample.accuracy,),
        (
            "accuracy (%)",
            "budget (interventions per response)",
            "∞",
            "base alone",
            "control (random control)",
        ),
    ),
    "accuracy by share": (
        accuracy.by_share,
        (sample.accuracy,),
        ("accuracy (%)", "tokens replaced (effective, %)"),
    ),
    "differences": (
        differences.forest,
        (sample.differences, sample.accuracy),
        (
            "difference of accuracy (percentage points)",
            "against the random control at the same budget",
        ),
    ),
    "histogram": (
        sparsity.histogram,
        (sample.js_histogram,),
        ("JS divergence (nats)", "positions (%)", "0", "10⁻⁶"),
    ),
    "percentiles": (
        sparsity.percentiles,
        (sample.js_percentiles,),
        ("JS divergence (nats)", "percentile of positions", "near zero ≤ 0.01", "high > 0.1"),
    ),
    "position, means": (
        position.means,
        (sample.js_by_position,),
        ("mean JS divergence (nats)", "position in the response (% of its length)"),
    ),
    "position, bands": (
        position.bands,
        (sample.js_by_position,),
        ("JS divergence (nats)", "median", "25th to 75th percentile", "dapo-qwen2.5-32b · forward"),
    ),
    "entropy": (
        entropy.distributions,
        (sample.entropy_histogram,),
        ("entropy (nats)", "JS > 0.1 nats", "base", "RL"),
    ),
    "entropy, joint": (
        entropy.joint,
        (sample.entropy_joint,),
        ("entropy of base (nats)", "positions in a cell"),
    ),
    "entropy, sequences": (
        entropy.sequences,
        (sample.sequences,),
        ("mean entropy of RL (nats)", "mean JS divergence (nats)"),
    ),
    "tokens": (
        identity.token_cloud,
        (sample.frequent_tokens,),
        ("␣$x_{1}$", "⏎", "\\frac", "JS ≤ 0.01 nats"),
    ),
    "tokens, js": (
        token_js.heat_rows,
        (sample.token_js,),
        ("JS divergence (nats)", "\\boxed", "≈ 0"),
    ),
    "overlap of lists": (
        mechanics.topk_overlap,
        (sample.topk_overlap,),
        ("k (tokens)", "forward", "reverse"),
    ),
    "ranks": (
        mechanics.top1_ranks,
        (sample.top1_ranks,),
        ("rank", "11+", "cumulative (%)", "positions (%)"),
    ),
    "tail": (
        mechanics.tail_probability,
        (sample.tail_probability,),
        ("p, a probability under base",),
    ),
    "shifts": (
        mechanics.shift_classes,
        (sample.shift_classes,),
        ("positions (%)", "high divergence"),
    ),
    "steps": (
        evolution.js_by_step,
        (sample.js_by_step,),
        ("training step", "JS divergence (nats)", "400"),
    ),
    "overlap": (
        evolution.high_overlap,
        (sample.high_overlap,),
        ("Jaccard overlap with the last (0 to 1)",),
    ),
    "truncations": (
        robustness.truncations,
        (sample.truncations,),
        ("top-1 (greedy)", "positions with JS > 0.1 nats (%)", "from stored data, exact"),
    ),
}
every_figure = pytest.mark.parametrize("name", FIGURES)


def tables(name: str) -> list[pa.Table]:
    """The sample tables of a figure: of two runs and a control where it matters; of checkpoints all
    are one table.
    """
    runs = (
        RUNS[:1]
        if name in ("steps", "overlap")
        else RUNS
        if sample.accuracy in FIGURES[name][1]
        else RUNS[:2]
    )
    return [sample.table(rows, runs) for rows in FIGURES[name][1]]


def few(name: str) -> list[pa.Table]:
    """Of one run and direction."""
    return [sample.table(rows, RUNS[:1], sample.WAYS[:1]) for rows in FIGURES[name][1]]


def drawn(name: str, given: list[pa.Table]) -> Figure | None:
    """The figure, laid out as in a file; a warning is an error."""
    figure = FIGURES[name][0](*given)
    if figure is not None:
        with use_style():
            figure.draw_without_rendering()
    return figure


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for text in figure.findobj(Text)}


def outside(figure: Figure) -> float:
    """How far the figure's contents are over its edges, in inches."""
    with use_style():
        box = figure.get_tightbbox(renderer(figure))
    return float(
        max(-box.x0, -box.y0, box.x1 - figure.get_figwidth(), box.y1 - figure.get_figheight())
    )


def changed(table: pa.Table, change: Callable[[pa.ChunkedArray], Any]) -> pa.Table:
    """The table with its columns of floats replaced."""
    for place, field in enumerate(table.schema):
        if pt.is_floating(field.type):
            table = table.set_column(
                place, field.name, pa.array(change(table[field.name]), field.type)
            )
    return table


@every_figure
def test_a_figure_has_its_labels_and_units_no_formula_and_nothing_outside_the_canvas(
    name: str,
) -> None:
    figure = drawn(name, tables(name))
    assert figure is not None
    assert not set(FIGURES[name][2]) - texts(figure)
    assert outside(figure) <= 0.01
    assert not any(text.get_parse_math() for text in figure.findobj(Text))


@every_figure
def test_one_row_is_enough(name: str) -> None:
    figure = drawn(name, [table.slice(0, 1) for table in few(name)])
    assert figure is not None and outside(figure) <= 0.01


@every_figure
def test_of_nothing_there_is_no_figure(name: str) -> None:
    assert drawn(name, [table.slice(0, 0) for table in few(name)]) is None


@every_figure
def test_of_nulls_there_is_no_figure(name: str) -> None:
    assert (
        drawn(name, [changed(table, lambda column: [None] * len(column)) for table in few(name)])
        is None
    )


@every_figure
def test_some_nulls_are_left_out(name: str) -> None:
    def thinned(column: pa.ChunkedArray) -> list[float | None]:
        return [value if place % 3 else None for place, value in enumerate(column.to_pylist())]

    figure = drawn(name, [changed(table, thinned) for table in few(name)])
    assert figure is not None and outside(figure) <= 0.01


@every_figure
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_values_that_are_all_equal_make_a_figure(name: str, value: float) -> None:
    given = [changed(table, lambda column: [value] * len(column)) for table in few(name)]
    figure = drawn(name, given)
    assert figure is None or outside(figure) <= 0.01


@every_figure
def test_tables_of_one_run_need_not_name_it(name: str) -> None:
    given = [table.drop_columns(["run"]) for table in few(name)]
    assert drawn(name, given) is not None
