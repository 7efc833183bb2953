"""Figures to files: PNG for the page, SVG for the paper; the same figure gives the same bytes."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from evaluators.figures.style import styled

PNG_DPI = 160


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """`folder`/`name`.png and .svg, the folder made if need be; neither names a date or a
    program.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with styled():  # ticks and texts are made when a figure is drawn
        figure.savefig(png, dpi=PNG_DPI, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg
