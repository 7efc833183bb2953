"""The words for a sample and its trajectories, the same on the page and in the terminal."""

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
_ROLES = {"base": "base is primary, rl intervenes", "rl": "rl is primary, base intervenes"}
_GIVEN = "a given response, only measured: neither policy sampled it here"
_SETTINGS = (
    "criterion", "threshold", "match", "window", "eos", "extrapolate", "extrapolate_to", "trace",
    "temperature", "top_p", "top_k", "max_tokens", "seed", "record_threshold", "record_top_k",
)  # fmt: skip
_SIGNS = {" ": "\N{OPEN BOX}", "\n": "\N{RETURN SYMBOL}", "\t": "\N{RIGHTWARDS ARROW TO BAR}"}
_WHITE_SPACE = "".join(_SIGNS)
_FINISHED = {"stop": "ended by itself", "length": "cut off at the length cap"}

COLOUR_MEANS = (
    f"Jensen-Shannon divergence of the two policies in nats, from 0 to ln 2 = {MAX_JS:.3f}; the "
    "colour goes with its square root. No colour: not measured, as only one policy saw the position"
)
BROKEN_MEANS = (
    "\N{REPLACEMENT CHARACTER}: a part of a character, which several tokens make together"
)


def label(key: Trajectory) -> str:
    """The name of a trajectory among those of its sample."""
    if key.direction == GIVEN:
        return key.direction
    budget = "unlimited" if key.budget is None else f"budget {key.budget}"
    return f"{key.direction}, {budget}"


def roles(primary: str | None) -> str:
    """The roles of the policies in a trajectory with this primary."""
    return _GIVEN if primary is None else _ROLES[primary]


def settings(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The names and values of the settings on which the numbers depend, if they are set."""
    models, config, task = (section(manifest, name) for name in ("models", "config", "task"))
    values = {f"{name} model": models.get(name) for name in POLICIES} | {"task": task.get("name")}
    values |= {name.replace("_", " "): config.get(name) for name in _SETTINGS}
    return [(name, str(value)) for name, value in values.items() if value is not None]


def facts(traced: Traced, primary: str | None) -> list[str]:
    """A trajectory in numbers: its length and end, its interventions, and last its verdict.

    Args:
        traced: The trajectory.
        primary: Its primary policy; without one it has no interventions.
    """
    response = traced.response
    texts = [f"{traced.rows.num_rows:,} tokens", _FINISHED.get(str(response["finish_reason"]), "")]
    if primary:
        num, num_effective = response["interventions"], response["effective_interventions"]
        texts.append(f"{num} intervention{'' if num == 1 else 's'} ({num_effective} effective)")
    return [fact for fact in (*texts, _verdict(traced)) if fact]


def _verdict(traced: Traced) -> str:
    if traced.verdict is None:
        return "not graded"
    verdict = traced.verdict.replace("_", " ")
    return f"{verdict}: {' '.join(traced.answer.split())}" if traced.answer else verdict


def parting(aligned: Aligned, sample: Sample) -> str:
    """Where a trajectory parts from which other; empty where it shares tokens with none."""
    other, position = aligned.parts_from, aligned.num_shared
    if other is None:
        return ""
    if aligned.same:
        return f"same tokens as {label(other)}"
    tokens = {traced.key: traced.tokens for traced in sample.trajectories}
    own_token, other_token = (
        _token_at(sample, tokens[key], position) for key in (aligned.key, other)
    )
    where = f"parts from {label(other)} at position {position:,}"
    return f"{where}: {own_token} here, {other_token} there"


def _token_at(sample: Sample, tokens: list[int], position: int) -> str:
    return quote_token(sample.text(tokens[position])) if position < len(tokens) else "the end"


def quote_token(text: str) -> str:
    """The text of a token in quotes, with visible spaces and line ends."""
    visible_text = show_white_space(text, _WHITE_SPACE)
    return f"\N{LEFT DOUBLE QUOTATION MARK}{visible_text}\N{RIGHT DOUBLE QUOTATION MARK}"


def inline_text(text: str) -> str:
    """The text of a token among others, with visible line ends.

    Its spaces are visible only where it is nothing but white space.
    """
    return show_white_space(text, _WHITE_SPACE.strip(" ") if text.strip() else _WHITE_SPACE)


def show_white_space(text: str, chars: str) -> str:
    """Replace the given white space by visible signs, and escape all that could move a cursor."""
    for char in chars:
        text = text.replace(char, _SIGNS[char])
    return visible(text)
