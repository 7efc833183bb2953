"""The style of all figures: the style file, a colour per run, a line style per direction, panels.

The style is in force only inside `use_style`. The user's own settings of matplotlib are neither
used nor changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from math import ceil
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from engine.arrays import Floats
from evaluators.figures.ticks import plain

Sharing = bool | Literal["row"]
LineStyle = Literal["-"] | tuple[float, Sequence[float]]

STYLE = Path(__file__).with_name("xsample.mplstyle")
WIDTH = 7.0  # inches: two columns of a paper

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
POLICY_COLOURS = {"base": "#56B4E9", "rl": "#B45F00"}
POLICY_NAMES = {"base": "base", "rl": "RL"}
CONTROL_COLOUR = "#7A7A7A"
GUIDE_COLOUR = "#444444"

LINE_STYLES: dict[str, LineStyle] = {
    "forward": "-",
    "reverse": (0, (5, 1.5)),
    "given": (0, (1, 1.2)),
}
MARKERS = {"forward": "o", "reverse": "s", "given": "^"}
HATCHES = {"forward": "", "reverse": "/////", "given": "....."}

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@contextmanager
def use_style() -> Iterator[None]:
    """Put the style in force, over matplotlib's own defaults; the settings before it come back."""
    with matplotlib.rc_context(fname=STYLE):
        yield


def with_style(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorate a function that draws, so that it runs under the style."""

    @wraps(draw)
    def draw_styled(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with use_style():
            return draw(*args, **kwargs)

    return draw_styled


def panels(
    rows: int,
    columns: int,
    height: float,
    *,
    share_x: bool = True,
    share_y: Sharing = True,
    widths: Sequence[float] | None = None,
) -> tuple[Figure, NDArray[Any]]:
    """A figure with a grid of panels. Call it under the style.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        height: Height of a row, in inches.
        share_x: Whether all panels share the x scale.
        share_y: Whether all panels, or those of a row, share the y scale.
        widths: Relative widths of the columns.

    Returns:
        The figure and its axes [rows, columns].
    """
    canvas = new_figure(0.35 + rows * height)
    axes = canvas.subplots(
        rows, columns, squeeze=False, sharex=share_x, sharey=share_y, width_ratios=widths
    )
    return canvas, axes


def new_figure(height: float) -> Figure:
    """A figure without axes, `height` inches high, that draws into memory."""
    canvas = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(canvas)
    return canvas


def colours(runs: Sequence[str]) -> dict[str, str]:
    """The colour of each run, in the order of the runs.

    The palette of Okabe and Ito where it has enough colours, else shades from dark to light, which
    suit checkpoints.
    """
    names = list(dict.fromkeys(runs))
    if len(names) <= len(OKABE_ITO):
        return dict(zip(names, OKABE_ITO, strict=False))
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(names)))
    return {name: to_hex(shade) for name, shade in zip(names, shades, strict=True)}


def bar_looks(colour: str, hatch: str) -> dict[str, Any]:
    """Keyword arguments of matplotlib for a bar: filled, or hatched on white."""
    return (
        {"facecolor": "white", "edgecolor": colour, "hatch": hatch} if hatch else {"color": colour}
    )


def draw_line(axes: Axes, x: Floats, y: Floats, **looks: Any) -> None:
    """Draw a line, or a dot where it has a single point.

    The line may cross the edges of the axes, so that it is seen whole at 0 and at 100 %.

    Args:
        axes: The panel.
        x: Positions along x; NaN where a point is missing.
        y: Positions along y; NaN where a point is missing.
        **looks: Keyword arguments of matplotlib.
    """
    num_points = int(np.isfinite(x * y).sum())
    if num_points == 1 and not looks.get("marker"):
        looks["marker"] = "o"
    if num_points:  # matplotlib cannot lay out a line without points
        axes.plot(x, y, **{"zorder": 3, "clip_on": False, **looks})


def label_panel(axes: Axes, label: str, colour: str | None = None) -> None:
    """Write what a panel shows above it, at the left."""
    axes.set_title(label, loc="left", color=colour or GUIDE_COLOUR)


def guide(axes: Axes, *, x: float | None = None, y: float | None = None) -> None:
    """Draw a thin line for comparison, such as a cutoff."""
    line: LineStyle = (0, (2, 2))
    if x is not None:
        axes.axvline(x, color=GUIDE_COLOUR, linewidth=0.8, linestyle=line, zorder=1.5)
    if y is not None:
        axes.axhline(y, color=GUIDE_COLOUR, linewidth=0.8, linestyle=line, zorder=1.5)


def small_multiples(
    num_panels: int, height: float, columns: int = 2, *, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of panels that share their scales, filled row by row. Call it under the style.

    Args:
        num_panels: Number of panels.
        height: Height of a row, in inches.
        columns: Largest number of columns.
        share_y: Whether the panels also share the y scale.
    """
    columns = min(columns, num_panels)
    canvas, grid = panels(ceil(num_panels / columns), columns, height, share_y=share_y)
    places = list(grid.flat)
    for spare in places[num_panels:]:
        spare.remove()
    for lowest in places[max(0, num_panels - columns) : num_panels]:
        lowest.tick_params(labelbottom=True)
    return canvas, places[:num_panels]


def label_axes(canvas: Figure, x: str, y: str) -> None:
    """Label the x and y axes of all panels, once for the figure."""
    canvas.supxlabel(x, fontsize="medium")
    canvas.supylabel(y, fontsize="medium")


def colour_bar(
    canvas: Figure,
    mappable: ScalarMappable,
    beside: Sequence[Axes],
    label: str,
    places: Sequence[float] | None = None,
) -> None:
    """Add the scale of colours at the right of the axes `beside`, with ticks at `places`."""
    aspect = max(20.0, 5.5 * canvas.get_figheight())  # the same width at any height
    bar = canvas.colorbar(
        mappable, ax=list(beside), aspect=aspect, pad=0.02, format=FuncFormatter(plain)
    )
    if places is not None:
        bar.set_ticks(list(places))
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label(label)


def renderer(canvas: Figure) -> RendererAgg:
    """The renderer of a figure, which measures its text in pixels."""
    assert isinstance(canvas.canvas, FigureCanvasAgg), "every figure here draws into memory"
    return cast(RendererAgg, canvas.canvas.get_renderer())  # type: ignore[no-untyped-call]
