"""The settings of the switching rule: which values are legal, and what a missing value means.

The switching rule S(x_<t) in {0, 1} says whether the token at a position comes from the
intervention policy (arXiv 2603.22446, section 3). Its settings are the criterion, the threshold,
the window, the extrapolation and the budget. Every ValueError of these functions is one line that
names the setting, its value and the way out. Imports nothing heavy.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import log
from pathlib import Path

from engine.core import Policy, budget_order, budget_text
from engine.sampling.rule import CriterionName

DEFAULT_THRESHOLDS: dict[CriterionName, float] = {"js": 0.1, "dlogp": -0.3}
"""In nats. js: "high divergence" of arXiv 2603.22446, section 4; dlogp: DAPO-32B in 2603.22117."""
WITHOUT_THRESHOLD = ("argmax", "always", "never")
"""Criteria that compare nothing with a threshold."""
_EDGE = re.compile(r"[0-9]{1,9}|[0-9]{1,3}(\.[0-9]{1,9})?%")


def parse_budget(value: object) -> tuple[int | None, ...]:
    """Parse one budget or a list of budgets.

    Args:
        value: `8`, `"0,1,8"`, `"unlimited"`, or a list of such items.

    Returns:
        Budgets, strictly increasing; None is unlimited and comes last.

    Raises:
        ValueError: The value is no budget, or the budgets do not increase.
    """
    items = value if isinstance(value, (list, tuple, range)) else str(value).split(",")
    if not items:
        raise ValueError("an empty list names no budget: give whole numbers >= 0, or unlimited")
    budgets = tuple(map(_parse_budget_item, items))
    ordered = tuple(sorted(set(budgets), key=budget_order))
    if budgets != ordered:
        suggestion = ",".join(map(budget_text, ordered))
        raise ValueError(f"budgets must rise strictly, unlimited last: give {suggestion}")
    return budgets


def _parse_budget_item(item: object) -> int | None:
    text = "unlimited" if item is None else str(item).strip().lower()
    if text == "unlimited":
        return None
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text!r} is not a budget: give whole numbers >= 0, or unlimited")
    if int(text) >= 2**31:
        raise ValueError(f"budget {text} does not fit into 32 bits: say unlimited")
    return int(text)


def resolve_threshold(criterion: CriterionName, threshold: float | None, matched: bool) -> float:
    """The threshold of a Rule.

    Args:
        criterion: What is compared with the threshold.
        threshold: The setting, in nats; a rate of positions for `random`. None is the default.
        matched: Whether the run is a control that matches another run.

    Returns:
        The threshold; 0 if the criterion takes none, or if `match` sets the number of positions.

    Raises:
        ValueError: The criterion takes no such threshold, or has no default.
    """
    if criterion in WITHOUT_THRESHOLD or matched:
        if threshold is not None:
            fault = f"criterion {criterion!r} compares nothing"
            if matched:
                fault = "match already says at how many positions"
            raise ValueError(f"threshold is {threshold} but {fault}: leave threshold out")
        return 0.0
    if threshold is None:
        return _default_threshold(criterion)
    if criterion == "random" and not 0 < threshold <= 1:
        raise ValueError(
            f"threshold is {threshold} but with criterion 'random' it is a rate of positions: give"
            " one in (0, 1]"
        )
    if criterion != "dlogp" and threshold < 0:
        raise ValueError(
            f"threshold is {threshold} but {criterion!r} is never negative (nats): give 0 or more"
        )
    if criterion == "js" and threshold > log(2):
        raise ValueError(
            f"threshold is {threshold} but 'js' is at most ln 2 = 0.693 nats: give less, or"
            " criterion never"
        )
    return threshold


def _default_threshold(criterion: CriterionName) -> float:
    if criterion == "random":
        raise ValueError(
            "criterion is 'random' without threshold or match: give threshold, a rate of positions"
            " in (0, 1], or match, a run whose numbers of interventions are to be kept"
        )
    if criterion not in DEFAULT_THRESHOLDS:
        raise ValueError(
            f"criterion is {criterion!r} without threshold, and has no default: give one in nats,"
            " >= 0"
        )
    return DEFAULT_THRESHOLDS[criterion]


def check_match(match: Path | None, criterion: CriterionName, criterion_is_set: bool) -> None:
    """Check that a run that matches another one intervenes at random positions.

    Args:
        match: The run directory that is matched, if any.
        criterion: The criterion of this run.
        criterion_is_set: Whether the user has set it; for the message.

    Raises:
        ValueError: The criterion is not `random`.
    """
    if match is not None and criterion != "random":
        fault = f"no criterion is given ({criterion!r} then)"
        if criterion_is_set:
            fault = f"criterion is {criterion!r}"
        raise ValueError(
            f"match is {str(match)!r} but {fault}: give criterion random, which puts as many"
            " interventions at random positions, or leave match out"
        )


def check_window(window: object) -> str:
    """Check that a window is START:STOP and contains a position under some max_tokens.

    Returns:
        The window as it is.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(window, str):  # YAML reads 32:40 without quotes as a number to base 60
        raise ValueError(
            'give START:STOP as text, in a YAML file in quotes: "32:", ":25%", "32:40"'
        )
    start, colon, stop = window.partition(":")
    if not colon or ":" in stop:
        raise ValueError(
            "give START:STOP with one colon, each side empty, a number of tokens or a share: 32: or"
            " :25%"
        )
    for edge in filter(None, (start, stop)):
        if not _EDGE.fullmatch(edge):
            raise ValueError(
                f"{edge!r} is no position: give a whole number of tokens >= 0, or a share like"
                " 12.5%"
            )
        if edge.endswith("%") and _number(edge) > 100:
            raise ValueError(f"{edge} is more than all of max_tokens: give at most 100%")
    stop = stop or "100%"
    start = start or ("0%" if stop.endswith("%") else "0")
    if start.endswith("%") == stop.endswith("%") and _number(start) >= _number(stop):
        raise ValueError(
            f"it holds no position: give a START below {stop}, or a STOP beyond {start}"
        )
    return window


def resolve_window(window: str | None, max_tokens: int) -> tuple[int, int]:
    """The positions of a response that a window allows.

    Args:
        window: START:STOP, each a number of tokens, a share of `max_tokens` or empty. None is all.
        max_tokens: Tokens of a response, at most.

    Returns:
        The first position, from 0, and the one after the last. Shares are rounded down.

    Raises:
        ValueError: The window is empty, or goes beyond `max_tokens`.
    """
    left, _, right = (window or ":").partition(":")
    start, stop = _position(left or "0", max_tokens), _position(right or "100%", max_tokens)
    stated = f"window is {window!r} and max_tokens {max_tokens}"
    if start >= max_tokens:
        raise ValueError(
            f"{stated}: it begins beyond the cap; give a START below {max_tokens}, or more"
            " max_tokens"
        )
    if stop > max_tokens:
        raise ValueError(
            f"{stated}: it ends beyond the cap; leave STOP out, or give more max_tokens"
        )
    if start >= stop:
        raise ValueError(
            f"{stated}: from {start} to {stop} there is no position; lower START, or raise STOP"
        )
    return start, stop


def _position(edge: str, max_tokens: int) -> int:
    return int(_number(edge) * max_tokens / 100) if edge.endswith("%") else int(edge)


def _number(edge: str) -> Fraction:
    """The number in `32` or `12.5%`, exact: a share must not lose a token to a rounding error."""
    return Fraction(edge.removesuffix("%"))


def resolve_extrapolation(
    strength: float, to: Policy | None, criterion: CriterionName, direction: str
) -> Policy:
    """The policy that an extrapolation moves towards.

    Args:
        strength: The setting `extrapolate`, g of (1 + g) log p_to - g log p_other; 0 is off.
        to: The setting `extrapolate_to`.
        criterion: The criterion of the run.
        direction: The direction of the run, or "both".

    Returns:
        `to`, by default rl.

    Raises:
        ValueError: These settings do not go together.
    """
    if not strength and to:
        raise ValueError(
            f"extrapolate_to is {to!r} but extrapolate is {strength}, which is off: give"
            " extrapolate above 0, or leave extrapolate_to out"
        )
    if strength and criterion == "never":
        raise ValueError(
            f"extrapolate is {strength} but criterion is 'never', which never intervenes: "
            "leave extrapolate out, or give another criterion"
        )
    if strength and not to and direction != "forward":
        raise ValueError(
            f"extrapolate is {strength} and direction {direction!r}, but not to which policy: "
            "give extrapolate_to base or rl, or direction forward"
        )
    return to or "rl"
