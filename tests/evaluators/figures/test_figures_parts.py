"""What figures are made of: style, files, text of strangers, words in lines, numbers on axes, arms
compared.
"""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from evaluators.figures import accuracy, entropy, identity, sparsity, text
from evaluators.figures.differences import forest
from evaluators.figures.flow import Size, flow
from evaluators.figures.saving import save
from evaluators.figures.series import split
from evaluators.figures.style import colours, renderer
from evaluators.figures.ticks import decades, plain
from tests.support import figure_tables as sample
from tests.support.paths import ROOT

SIZES = st.lists(
    st.builds(Size, st.floats(0.1, 9), st.floats(0.1, 2), st.floats(0, 1)), max_size=40
)


def cloud(tokens: Sequence[str]) -> Figure:
    rows: list[sample.Row] = [
        {
            "run": "r",
            "direction": "forward",
            "divergence": "high",
            "rank": place + 1,
            "token": place,
            "text": token,
        }
        | {"positions": 9, "share": 0.2 / (place + 1), "share_high": 0.5}
        for place, token in enumerate(tokens)
    ]
    figure = identity.token_cloud(pa.Table.from_pylist(rows))
    assert figure is not None
    return figure


def boxes(figure: Figure) -> list[Bbox]:
    """Where each text of a figure is, in pixels; the axes have theirs apart."""
    return [label.get_window_extent(renderer(figure)) for label in figure.texts if label.get_text()]


def difference(
    run: str, against: str, budget: int | None, against_budget: int | None, value: float
) -> sample.Row:
    return {
        "run": run, "direction": "forward", "budget": budget, "against_run": against,
        "against_direction": "forward", "against_budget": against_budget, "difference": value,
        "low": value - 0.01, "high": value + 0.02,
    }  # fmt: skip


def marks(figure: Figure) -> list[tuple[float, str]]:
    """The points of a forest plot, with their markers."""
    lines = [line for axes in figure.axes for line in axes.lines if line.get_marker() in ("o", "D")]
    return sorted(
        (round(float(np.asarray(line.get_xdata())[0]), 6), str(line.get_marker())) for line in lines
    )


@pytest.mark.parametrize(
    ("draw", "rows"),
    [
        (sparsity.histogram, sample.js_histogram),
        (entropy.sequences, sample.sequences),
        (identity.token_cloud, sample.frequent_tokens),
    ],
    ids=["histogram", "points as pixels", "cloud"],
)
def test_the_same_figure_gives_the_same_bytes_without_a_date(
    tmp_path: Path, draw: Any, rows: Any
) -> None:
    figure = draw(sample.table(rows, sample.RUNS[:1]))
    once = [file.read_bytes() for file in save(figure, tmp_path / "new" / "folder", "one")]
    again = [file.read_bytes() for file in save(figure, tmp_path, "two")]
    assert once == again
    assert once[0].startswith(b"\x89PNG") and b"<svg" in once[1]
    assert b"dc:date" not in once[1] and b"matplotlib.org/" not in b"".join(once)


def test_two_tables_with_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    figures = [accuracy.by_budget(sample.table(sample.accuracy)) for _ in range(2)]
    written = [save(figure, tmp_path, str(place)) for place, figure in enumerate(figures) if figure]
    assert [file.read_bytes() for file in written[0]] == [file.read_bytes() for file in written[1]]


def test_drawing_leaves_the_settings_of_matplotlib_as_they_were(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    figure = sparsity.percentiles(sample.table(sample.js_percentiles))
    assert figure is not None
    save(figure, tmp_path, "figure")
    assert dict(matplotlib.rcParams) == before


def test_what_a_user_has_set_for_matplotlib_changes_no_figure(tmp_path: Path) -> None:
    written: list[list[bytes]] = []
    for size in (10, 30):
        with matplotlib.rc_context(
            {"font.size": size, "lines.linewidth": size, "text.parse_math": True}
        ):
            figure = sparsity.percentiles(sample.table(sample.js_percentiles))
            assert figure is not None
            written.append([file.read_bytes() for file in save(figure, tmp_path, str(size))])
    assert written[0] == written[1]


def test_neither_pyplot_nor_a_window_is_needed_and_the_command_line_does_not_load_matplotlib() -> (
    None
):
    code = (
        "import sys, xsample.cli.main; assert 'matplotlib' not in sys.modules;"
        "from evaluators.figures import accuracy, differences, entropy, evolution, identity, "
        "mechanics, position;"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=300)


def test_a_run_keeps_its_colour_where_another_is_missing() -> None:
    table = sample.table(sample.topk_overlap, ("second",))
    assert split(table, ("first", "second"))[0].colour == colours(("first", "second"))["second"]


@pytest.mark.parametrize("num_runs", [1, 7, 8, 30])
def test_every_run_has_a_colour_of_its_own(num_runs: int) -> None:
    assert len(set(colours([str(run) for run in range(num_runs)]).values())) == num_runs


@given(st.text())
def test_every_character_of_a_token_is_seen(found: str) -> None:
    shown = text.token(found)
    assert all(unicodedata.category(char)[0] not in "CZM" for char in shown)
    assert len(shown) <= text.MAX_TOKEN


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (" the", "␣the"),
        ("\n\n", "⏎⏎"),
        ("$x_{1}$", "$x_{1}$"),
        ("\\frac", "\\frac"),
        ("\t", "⇥"),
        ("\x1b", "\\u001b"),
        ("\u202e", "\\u202e"),
        ("首", "\\u9996"),
        ("\U00020000", "\\U00020000"),
        ("�", "#7"),
        ("", "#7"),
        (None, "#7"),
    ],
)
def test_text_is_written_out_where_it_cannot_be_seen(found: str | None, shown: str) -> None:
    assert text.token(found, 7) == shown


def test_a_long_name_keeps_its_start_and_its_end() -> None:
    shown = text.name("a-very-long-name-of-an-experiment/checkpoints/global_step_100")
    assert (
        len(shown) == text.MAX_NAME
        and shown.startswith("a-very")
        and shown.endswith("step_100")
        and "…" in shown
    )


def test_tokens_do_not_overlap_and_stay_within_the_figure() -> None:
    hostile = [
        "$",
        "$$",
        "\\",
        "{",
        "}",
        "_{",
        "^",
        "\\frac{1}{",
        "$\\alpha$",
        "W" * 200,
        "\n" * 40,
        "中文",
        "ffi",
        "gjpqy|",
    ]
    figure = cloud(hostile * 3)
    found = boxes(figure)
    assert not any(Bbox.intersection(one, other) for one, other in combinations(found, 2))
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in found)
    assert all(box.y1 <= figure.bbox.height for box in found)


def test_the_area_of_a_token_is_its_frequency() -> None:
    sizes = {
        label.get_text(): float(label.get_fontsize()) for label in cloud(["a", "b", "c"]).texts
    }
    assert (sizes["b"] / sizes["a"]) ** 2 == pytest.approx(1 / 2)
    assert (sizes["c"] / sizes["a"]) ** 2 == pytest.approx(1 / 3)


def test_a_formula_in_the_name_of_a_run_is_text(tmp_path: Path) -> None:
    runs = ("$\\frac{$", "x_{1}^$ & <b>")
    figure = accuracy.by_budget(sample.table(sample.accuracy, runs))
    assert figure is not None
    save(figure, tmp_path, "figure")
    assert set(runs) <= {label.get_text() for label in figure.findobj(Text)}


@given(SIZES, st.floats(1, 20), st.floats(0, 1))
def test_words_in_lines_do_not_overlap_and_only_a_word_wider_than_a_line_leaves_it(
    words: list[Size], width: float, gap: float
) -> None:
    paragraph = flow(words, width, gap)
    placed = [
        Bbox.from_extents(x, depth - word.ascent, x + word.width, depth + word.descent)
        for word, (x, depth) in zip(words, paragraph.places, strict=True)
    ]
    for one, other in combinations(placed, 2):
        shared = Bbox.intersection(one, other)
        assert shared is None or min(shared.width, shared.height) < 1e-9
    assert all(
        box.x1 <= max(width, box.width) + 1e-9 and box.y1 <= paragraph.height + 1e-9
        for box in placed
    )


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.01, "0.01"),
        (100, "100"),
        (1e-7, "10⁻⁷"),
        (2e-5, "2·10⁻⁵"),
        (-20, "\N{MINUS SIGN}20"),
        (1e6, "10⁶"),
    ],
)
def test_a_number_on_an_axis_needs_no_formula(value: float, shown: str) -> None:
    assert plain(value) == shown


def test_decades_are_those_around_the_positive_values() -> None:
    assert decades(np.array([0.0, 0.003, 0.2])) == pytest.approx((0.001, 1.0))


def test_budgets_rise_along_the_axis_and_unlimited_is_last() -> None:
    places = accuracy.budget_places([None, 8, 0, 1, 64])
    assert sorted(places, key=places.__getitem__) == [0, 1, 8, 64, None]
    assert accuracy.budget_places([None]) == {None: 1.0}


def test_an_arm_is_compared_with_the_lowest_budget_and_with_the_control_from_either_side() -> None:
    rows = [
        difference("ours", "ours", 2, 1, 0.1),
        difference("ours", "ours", None, 1, 0.3),
        difference("ours", "ours", None, 2, 0.2),  # not with the lowest
        difference("ours", "other", 2, 2, 0.9),  # no control
        difference("ours", "control", 0, 0, 0.0),  # neither intervenes
        difference("ours", "control", 2, 2, 0.05),
        difference("control", "ours", None, None, -0.25),
    ]
    arms: list[dict[str, Any]] = [
        {"run": run, "direction": "forward", "control": run == "control"}
        for run in ("ours", "other", "control")
    ]
    figure = forest(pa.Table.from_pylist(rows), pa.Table.from_pylist(arms))
    assert figure is not None
    assert marks(figure) == [(5.0, "D"), (10.0, "o"), (25.0, "D"), (30.0, "o")]
