"""A sample as one self-contained HTML file.

It needs no network, and no text of the run is read as markup or script.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from engine.system.files import write_whole
from engine.system.terminal import visible
from evaluators.html import environment, hash_source
from evaluators.inspector.alignment import Aligned, align
from evaluators.inspector.colours import LEGEND, shade
from evaluators.inspector.columns import page_data
from evaluators.inspector.redaction import redact_if_gated
from evaluators.inspector.sample import Sample
from evaluators.inspector.wording import (
    BROKEN_MEANS,
    COLOUR_MEANS,
    facts,
    label,
    parting,
    roles,
    settings,
)

_HERE = Path(__file__).parent


def inspect_html(sample: Sample, show_text: bool) -> str:
    """Render the page of a sample.

    Args:
        sample: The responses to show.
        show_text: Also show the text of a gated set, which must not be published.
    """
    sample = redact_if_gated(sample, show_text)
    aligned = align({traced.key: traced.tokens for traced in sample.trajectories})
    data = page_data(sample, aligned)
    has_broken = any("\N{REPLACEMENT CHARACTER}" in text for _, text in data["names"])
    style, script = _asset("page.css"), _asset("page.js")
    templates = environment(_HERE)
    templates.filters["visible"] = visible
    return templates.get_template("page.html.j2").render(
        sample=sample,
        settings=settings(sample.manifest),
        blocks=_blocks(sample, aligned),
        legend=[(f"{js:.3g}", shade(js)) for js in LEGEND],
        colour_means=COLOUR_MEANS,
        broken_means=BROKEN_MEANS if has_broken else "",
        style=style,
        script=script,
        policy=_policy(style, script),
        data=_as_json(data),
    )


def write_page(sample: Sample, file: Path, show_text: bool) -> None:
    """Write the page of a sample to a file, whole or not at all.

    Args:
        sample: The responses to show.
        file: Where the page goes.
        show_text: Also show the text of a gated set, which must not be published.

    Raises:
        StoreError: The file cannot be written.
    """
    page = inspect_html(sample, show_text).encode("utf-8")
    write_whole(file, lambda opened: opened.write(page))


def _blocks(sample: Sample, aligned: list[Aligned]) -> list[dict[str, Any]]:
    """The values of the template for each trajectory, in their order."""
    traced = {trajectory.key: trajectory for trajectory in sample.trajectories}
    indices = {trajectory.key: index for index, trajectory in enumerate(aligned)}
    blocks = []
    for trajectory in aligned:
        key, parts_from = trajectory.key, trajectory.parts_from
        primary = sample.primary(key)
        blocks.append(
            {
                "label": label(key),
                "roles": roles(primary),
                "verdict": traced[key].verdict or "",
                "facts": facts(traced[key], primary),
                "parting": parting(trajectory, sample),
                "parts_from": None if parts_from is None else indices[parts_from],
                "goto": 0 if trajectory.same else trajectory.num_shared,
                "folded": trajectory.same and trajectory.folds,
            }
        )
    return blocks


@cache
def _asset(name: str) -> Markup:
    """A file of this room, which stands in the page as it is."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    """A Content-Security-Policy that allows this style and this script, and nothing else."""
    return (
        f"default-src 'none'; style-src '{hash_source(style)}'; script-src '{hash_source(script)}';"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )


def _as_json(value: dict[str, Any]) -> Markup:
    """JSON that can stand in a script element: ASCII without the special characters of HTML."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)
