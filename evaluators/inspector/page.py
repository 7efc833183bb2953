"""A sample as one HTML file that holds all it needs: no network, nothing of the run's text is ever markup or script."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.terminal import visible
from evaluators.inspector.alignment import Aligned, align
from evaluators.inspector.colours import LEGEND, shade
from evaluators.inspector.columns import page_data
from evaluators.inspector.redaction import shown
from evaluators.inspector.sample import Sample
from evaluators.inspector.wording import BROKEN_MEANS, COLOUR_MEANS, facts, label, parting, settings, who

_HERE = Path(__file__).parent


def inspect_html(sample: Sample, show_text: bool) -> str:
    """The page. The text of a gated set is redacted in it unless `show_text`."""
    sample = shown(sample, show_text)
    aligned = align({traced.key: traced.tokens for traced in sample.trajectories})
    data = page_data(sample, aligned)
    has_broken = any("\N{REPLACEMENT CHARACTER}" in text for _, text in data["names"])
    style, script = _asset("page.css"), _asset("page.js")
    template = _environment().get_template("page.html.j2")
    return template.render(
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


def _blocks(sample: Sample, aligned: list[Aligned]) -> list[dict[str, Any]]:
    """What is said of each trajectory, in their order."""
    traced = {one.key: one for one in sample.trajectories}
    places = {one.key: place for place, one in enumerate(aligned)}
    return [
        {
            "label": label(one.key),
            "who": who(sample.primary(one.key)),
            "verdict": traced[one.key].verdict or "",
            "facts": facts(traced[one.key], sample.primary(one.key)),
            "parting": parting(one, sample),
            "parts_from": None if one.parts_from is None else places[one.parts_from],
            "goto": 0 if one.same else one.num_shared,
            "folded": one.same and one.folds,
        }
        for one in aligned
    ]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["visible"] = visible
    return environment


@cache
def _asset(name: str) -> Markup:
    """A file of ours, to stand in the page as it is."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy: our style and our script by their hashes, and nothing else."""
    return (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _as_json(value: dict[str, Any]) -> Markup:
    """JSON that can stand in a script element: ASCII, and no character that HTML gives a meaning."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)
