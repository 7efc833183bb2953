"""What is said of a sample and its trajectories in words: the same on the page and in the
terminal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.core import GIVEN, POLICIES, Trajectory
from engine.store.manifest import section
from engine.system.terminal import visible
from evaluators.inspector.alignment import Aligned
from evaluators.inspector.colours import MAX_JS
from evaluators.inspector.sample import Sample, Traced

ABSENT = "\N{EN DASH}"
_WHO = {"base": "base is primary, rl intervenes", "rl": "rl is primary, base intervenes"}
_GIVEN = "a given response, only measured: neither policy made it here"
_SETTINGS = (
    "criterion", "threshold", "match", "window", "eos", "extrapolate", "extrapolate_to", "trace",
    "temperature", "top_p", "top_k", "max_tokens", "seed", "record_threshold", "record_top_k",
)  # fmt: skip
_SIGNS = {" ": "\N{OPEN BOX}", "\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}
_WHITE = "".join(_SIGNS)
_FINISHED = {"stop": "ended by itself", "length": "cut off at the length cap"}

COLOUR_MEANS = (
    f"Jensen-Shannon divergence of the two policies in nats, from 0 to ln 2 = {MAX_JS:.3f}; the "
    "colour goes with its "
    "square root. No colour: not measured, as only one policy was there"
)
BROKEN_MEANS = (
    "\N{REPLACEMENT CHARACTER}: a part of a character, which several tokens make together"
)


def label(key: Trajectory) -> str:
    """What a trajectory is called among those of its sample."""
    if key.direction == GIVEN:
        return key.direction
    return (
        f"{key.direction}, unlimited"
        if key.budget is None
        else f"{key.direction}, budget {key.budget}"
    )


def who(primary: str | None) -> str:
    """What the policies are in a trajectory with this primary."""
    return _GIVEN if primary is None else _WHO[primary]


def settings(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that the numbers depend on, those that are set."""
    models, config, task = (section(manifest, name) for name in ("models", "config", "task"))
    found = {f"{name} model": models.get(name) for name in POLICIES} | {"task": task.get("name")}
    found |= {name.replace("_", " "): config.get(name) for name in _SETTINGS}
    return [(name, str(value)) for name, value in found.items() if value is not None]


def facts(traced: Traced, primary: str | None) -> list[str]:
    """A trajectory in numbers: its length and end, its interventions if it has a primary, its
    verdict.
    """
    response = traced.response
    found = [f"{traced.rows.num_rows:,} tokens", _FINISHED.get(str(response["finish_reason"]), "")]
    if primary:
        num, num_effective = response["interventions"], response["effective_interventions"]
        found.append(f"{num} intervention{'' if num == 1 else 's'} ({num_effective} effective)")
    return [fact for fact in (*found, _verdict(traced)) if fact]


def _verdict(traced: Traced) -> str:
    if traced.verdict is None:
        return "not graded"
    said = traced.verdict.replace("_", " ")
    return f"{said}: {' '.join(traced.answer.split())}" if traced.answer else said


def parting(aligned: Aligned, sample: Sample) -> str:
    """Where it parts from which other; empty where it stands alone."""
    other, position = aligned.parts_from, aligned.num_shared
    if other is None:
        return ""
    if aligned.same:
        return f"same tokens as {label(other)}"
    tokens = {traced.key: traced.tokens for traced in sample.trajectories}
    here, there = (_said(sample, tokens[key], position) for key in (aligned.key, other))
    return f"parts from {label(other)} at position {position:,}: {here} here, {there} there"


def _said(sample: Sample, tokens: list[int], position: int) -> str:
    return spelled(sample.text(tokens[position])) if position < len(tokens) else "the end"


def spelled(text: str) -> str:
    """A token's text by itself, in quotes: spaces and line ends can be seen."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{signs(text, _WHITE)}\N{RIGHT DOUBLE QUOTATION MARK}"


def flowing(text: str) -> str:
    """A token's text among others: line ends can be seen, and spaces where there is nothing
    else.
    """
    return signs(text, _WHITE.strip(" ") if text.strip() else _WHITE)


def signs(text: str, chars: str) -> str:
    """`text` with signs for these white spaces; nothing in it can move a cursor."""
    for char in chars:
        text = text.replace(char, _SIGNS[char])
    return visible(text)
