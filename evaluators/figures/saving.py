"""Figures to files: PNG for the page, SVG for the paper.

The same figure always gives the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from evaluators.figures.style import use_style

PNG_DPI = 160


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG, without a date or the name of a program in them.

    Args:
        figure: The figure.
        folder: Where the files go; created if it does not exist.
        name: The names of both files, without suffix.

    Returns:
        The PNG file and the SVG file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with use_style():  # ticks and texts are laid out when a figure is saved
        figure.savefig(png, dpi=PNG_DPI, metadata={"Software": None})
        figure.savefig(svg, metadata={"Date": None, "Creator": None})
    return png, svg
