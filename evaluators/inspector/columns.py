"""A sample as the page's script takes it: columns, not objects, for a response may have thousands
of tokens.

A token is a place in `names`, a list of (id, text). In a redacted sample names have no ids, and all
texts of one length are one name, so that nothing tells which positions hold the same token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from engine.core import POLICIES, Trajectory
from engine.system.terminal import visible
from evaluators.inspector.alignment import Aligned
from evaluators.inspector.colours import palette, shade
from evaluators.inspector.sample import Sample, Traced
from evaluators.inspector.wording import label

_TOKENS = ("token", "primary_token", "top1_base", "top1_rl")
_INTEGERS = (
    "rank_base", "rank_rl", "nucleus_base", "nucleus_rl", "rank_base_of_top1_rl",
    "rank_rl_of_top1_base",
)  # fmt: skip
_FLOATS = (
    "js", "entropy_base", "entropy_rl", "logp_base", "logp_rl", "logp_base_of_top1_rl",
    "logp_rl_of_top1_base",
)  # fmt: skip
_DIGITS = 6  # what is shown has fewer


class _Names:
    """The places of tokens among the names, given as they come."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._places: dict[int, int] = {}
        self._named: dict[tuple[int | None, str], int] = {}

    def place(self, token: int | None) -> int | None:
        if token is None:
            return None
        if token not in self._places:
            name = (None if self._sample.redacted else token, visible(self._sample.text(token)))
            self._places[token] = self._named.setdefault(name, len(self._named))
        return self._places[token]

    @property
    def all(self) -> list[tuple[int | None, str]]:
        return list(self._named)


def page_data(sample: Sample, aligned: Sequence[Aligned]) -> dict[str, Any]:
    """What the script needs; JSON-able. A trajectory is referred to by its place in `aligned`."""
    names = _Names(sample)
    places = {one.key: place for place, one in enumerate(aligned)}
    traced = {one.key: one for one in sample.trajectories}
    trajectories = [
        {
            "primary": sample.primary(one.key),
            **_trajectory(traced[one.key], one, places, names.place),
        }
        for one in aligned
    ]
    return {"names": names.all, "palette": palette(), "trajectories": trajectories}


def _trajectory(
    traced: Traced,
    aligned: Aligned,
    places: dict[Trajectory, int],
    place: Callable[[int | None], int | None],
) -> dict[str, Any]:
    rows = traced.rows
    return {
        "label": label(traced.key),
        "partsFrom": None if aligned.parts_from is None else places[aligned.parts_from],
        "shared": aligned.num_shared,
        "folds": aligned.folds,
        "columns": _columns(rows, place),
        "lists": _lists(rows, place),
    }


def _columns(rows: pa.Table, place: Callable[[int | None], int | None]) -> dict[str, list[Any]]:
    """state: 0, 1 where intervened, 2 where that was effective. shade: see `colours`. Floats in
    nats.
    """
    columns: dict[str, list[Any]] = {
        name: list(map(place, rows[name].to_pylist())) for name in _TOKENS
    }
    columns |= {name: rows[name].to_pylist() for name in _INTEGERS}
    columns |= {name: list(map(_rounded, rows[name].to_pylist())) for name in _FLOATS}
    js = rows["js"].to_pylist()
    columns["shade"] = [None if value is None else shade(value) for value in js]
    flags = zip(rows["intervened"].to_pylist(), rows["effective"].to_pylist(), strict=True)
    columns["state"] = [bool(intervened) + bool(effective) for intervened, effective in flags]
    return columns | {f"logp_{policy}_of_own_top1": _own_top1(rows, policy) for policy in POLICIES}


def _own_top1(rows: pa.Table, policy: str) -> list[float | None]:
    """A policy's log-probability of its own top token, where a stored number is that.

    It is where that token is the other policy's top token too, or the one that was taken.
    """
    other = "rl" if policy == "base" else "base"
    names = (
        f"top1_{policy}",
        f"top1_{other}",
        "token",
        f"logp_{policy}_of_top1_{other}",
        f"logp_{policy}",
    )
    found = []
    for top1, others, token, of_others, of_token in zip(
        *(rows[name].to_pylist() for name in names), strict=True
    ):
        stored = (
            None
            if top1 is None
            else of_others
            if top1 == others
            else of_token
            if top1 == token
            else None
        )
        found.append(_rounded(stored))
    return found


def _lists(
    rows: pa.Table, place: Callable[[int | None], int | None]
) -> dict[int, list[list[int | None]]]:
    """Position -> the most probable tokens under base and under rl, where they were recorded."""
    pairs = zip(rows["topk_base"].to_pylist(), rows["topk_rl"].to_pylist(), strict=True)
    return {
        position: [[place(token) for token in of or []] for of in both]
        for position, both in enumerate(pairs)
        if any(of is not None for of in both)
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
