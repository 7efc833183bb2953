"""A sample as data for the page's script.

Columns and not objects, because a response may have thousands of tokens. A token is an index in
`names`, a list of (id, text). In a redacted sample names have no ids, and all texts of the same
length share a name, so that nothing reveals which positions hold the same token.
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
_DIGITS = 6  # the page shows fewer


NameIndex = Callable[[int | None], int | None]


class _Names:
    """The names of tokens, in the order in which they are first asked for."""

    def __init__(self, sample: Sample) -> None:
        self._sample = sample
        self._index_of_token: dict[int, int] = {}
        self._index_of_name: dict[tuple[int | None, str], int] = {}

    def index(self, token: int | None) -> int | None:
        """The index of the token's name; None for no token."""
        if token is None:
            return None
        if token not in self._index_of_token:
            name = (None if self._sample.redacted else token, visible(self._sample.text(token)))
            index = self._index_of_name.setdefault(name, len(self._index_of_name))
            self._index_of_token[token] = index
        return self._index_of_token[token]

    @property
    def all(self) -> list[tuple[int | None, str]]:
        """The id and text of each name, in the order of their indices."""
        return list(self._index_of_name)


def page_data(sample: Sample, aligned: Sequence[Aligned]) -> dict[str, Any]:
    """The data for the script, as JSON values.

    Args:
        sample: The sample, redacted if it must be.
        aligned: Its trajectories; one refers to another by its index here.
    """
    names = _Names(sample)
    indices = {trajectory.key: index for index, trajectory in enumerate(aligned)}
    traced = {trajectory.key: trajectory for trajectory in sample.trajectories}
    trajectories = [
        {
            "primary": sample.primary(trajectory.key),
            **_trajectory(traced[trajectory.key], trajectory, indices, names.index),
        }
        for trajectory in aligned
    ]
    return {"names": names.all, "palette": palette(), "trajectories": trajectories}


def _trajectory(
    traced: Traced,
    aligned: Aligned,
    indices: dict[Trajectory, int],
    name_index: NameIndex,
) -> dict[str, Any]:
    rows = traced.rows
    return {
        "label": label(traced.key),
        "partsFrom": None if aligned.parts_from is None else indices[aligned.parts_from],
        "shared": aligned.num_shared,
        "folds": aligned.folds,
        "columns": _columns(rows, name_index),
        "lists": _lists(rows, name_index),
    }


def _columns(rows: pa.Table, name_index: NameIndex) -> dict[str, list[Any]]:
    """The columns of a trajectory, one value per position.

    `state` is 0 without an intervention, 1 with one, and 2 with an effective one; `shade` is that
    of `colours`. Divergences, entropies and log-probabilities are in nats.
    """
    columns: dict[str, list[Any]] = {
        name: list(map(name_index, rows[name].to_pylist())) for name in _TOKENS
    }
    columns |= {name: rows[name].to_pylist() for name in _INTEGERS}
    columns |= {name: list(map(_round, rows[name].to_pylist())) for name in _FLOATS}
    js = rows["js"].to_pylist()
    columns["shade"] = [None if value is None else shade(value) for value in js]
    flags = zip(rows["intervened"].to_pylist(), rows["effective"].to_pylist(), strict=True)
    columns["state"] = [bool(intervened) + bool(effective) for intervened, effective in flags]
    return columns | {f"logp_{policy}_of_own_top1": _own_top1(rows, policy) for policy in POLICIES}


def _own_top1(rows: pa.Table, policy: str) -> list[float | None]:
    """A policy's log-probability of its own top token; None where it is not stored.

    It is stored where that token is also the other policy's top token, or the sampled token.
    """
    other = "rl" if policy == "base" else "base"
    names = (
        f"top1_{policy}",
        f"top1_{other}",
        "token",
        f"logp_{policy}_of_top1_{other}",
        f"logp_{policy}",
    )
    logps: list[float | None] = []
    for top1, other_top1, token, logp_of_other_top1, logp_of_token in zip(
        *(rows[name].to_pylist() for name in names), strict=True
    ):
        stored = None
        if top1 is not None and top1 == other_top1:
            stored = logp_of_other_top1
        elif top1 is not None and top1 == token:
            stored = logp_of_token
        logps.append(_round(stored))
    return logps


def _lists(rows: pa.Table, name_index: NameIndex) -> dict[int, list[list[int | None]]]:
    """The most probable tokens under base and under rl, by position, where they were recorded."""
    pairs = zip(rows["topk_base"].to_pylist(), rows["topk_rl"].to_pylist(), strict=True)
    return {
        position: [[name_index(token) for token in top_k or []] for top_k in pair]
        for position, pair in enumerate(pairs)
        if any(top_k is not None for top_k in pair)
    }


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.{_DIGITS}g}")
