"""How figures look: the style file, a colour a run, a line style a direction, and panels drawn
under the style.

The style is in force only inside `styled`; what a user has set for matplotlib is neither used nor
changed.
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
def styled() -> Iterator[None]:
    """The style is in force inside, over matplotlib's own defaults; after it all is as before."""
    with matplotlib.rc_context(fname=STYLE):
        yield


def with_style(draw: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """A function that draws, run under the style."""

    @wraps(draw)
    def drawn(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with styled():
            return draw(*args, **kwargs)

    return drawn


def panels(
    rows: int,
    columns: int,
    height: float,
    *,
    share_x: bool = True,
    share_y: Sharing = True,
    widths: Sequence[float] | None = None,
) -> tuple[Figure, NDArray[Any]]:
    """A figure of `rows` x `columns` axes, each row `height` inches high; call it under the
    style.
    """
    canvas = empty(0.35 + rows * height)
    axes = canvas.subplots(
        rows, columns, squeeze=False, sharex=share_x, sharey=share_y, width_ratios=widths
    )
    return canvas, axes


def empty(height: float) -> Figure:
    """A figure without axes, `height` inches high, that draws into memory."""
    canvas = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(canvas)
    return canvas


def colours(runs: Sequence[str]) -> dict[str, str]:
    """A colour a run, in this order: of Okabe and Ito while they last, else shades from dark to
    light (checkpoints).
    """
    names = list(dict.fromkeys(runs))
    if len(names) <= len(OKABE_ITO):
        return dict(zip(names, OKABE_ITO, strict=False))
    shades = matplotlib.colormaps["viridis"](np.linspace(0, 0.88, len(names)))
    return {name: to_hex(shade) for name, shade in zip(names, shades, strict=True)}


def bar_looks(colour: str, hatch: str) -> dict[str, Any]:
    """Of a bar: full, or hatched on white."""
    return (
        {"facecolor": "white", "edgecolor": colour, "hatch": hatch} if hatch else {"color": colour}
    )


def draw_line(axes: Axes, x: Floats, y: Floats, **looks: Any) -> None:
    """A line over the axes and their edges, so that what is at 0 or at 100 % is seen whole; of one
    point a dot.
    """
    num_points = int(np.isfinite(x * y).sum())
    if num_points == 1 and not looks.get("marker"):
        looks["marker"] = "o"
    if num_points:  # of a line without points the layout would not know where it is
        axes.plot(x, y, **{"zorder": 3, "clip_on": False, **looks})


def label_panel(axes: Axes, label: str, colour: str | None = None) -> None:
    """What a panel of several shows, above it at the left."""
    axes.set_title(label, loc="left", color=colour or GUIDE_COLOUR)


def guide(axes: Axes, *, x: float | None = None, y: float | None = None) -> None:
    """A thin line to read other things against, such as a cut-off."""
    line: LineStyle = (0, (2, 2))
    if x is not None:
        axes.axvline(x, color=GUIDE_COLOUR, linewidth=0.8, linestyle=line, zorder=1.5)
    if y is not None:
        axes.axhline(y, color=GUIDE_COLOUR, linewidth=0.8, linestyle=line, zorder=1.5)


def small_multiples(
    num_panels: int, height: float, columns: int = 2, *, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of `num_panels` axes that share their scales, filled row by row; call it under the
    style.
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
    """What both scales of small multiples are, written once."""
    canvas.supxlabel(x, fontsize="medium")
    canvas.supylabel(y, fontsize="medium")


def colour_bar(
    canvas: Figure,
    shown: ScalarMappable,
    beside: Sequence[Axes],
    label: str,
    places: Sequence[float] | None = None,
) -> None:
    """The scale of colours at the right of the axes `beside`, with ticks at `places`."""
    slender = max(20.0, 5.5 * canvas.get_figheight())  # the same width however high
    bar = canvas.colorbar(
        shown, ax=list(beside), aspect=slender, pad=0.02, format=FuncFormatter(plain)
    )
    if places is not None:
        bar.set_ticks(list(places))
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label(label)


def renderer(canvas: Figure) -> RendererAgg:
    """What measures the text of a figure, in its pixels."""
    assert isinstance(canvas.canvas, FigureCanvasAgg), "a figure of ours draws into memory"
    return cast(RendererAgg, canvas.canvas.get_renderer())  # type: ignore[no-untyped-call]
