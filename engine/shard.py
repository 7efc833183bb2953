"""Shards: N processes that share one run, each with its own trajectories and parts.

Shard K of N (from 1) has every N-th sample of the run, with all its directions and budgets, since
these share tokens. Its part indices are those that leave K - 1 when divided by N. So no trajectory
is generated twice, and no file is written by two shards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.core import Trajectory


class Shard(NamedTuple):
    """One shard of a run."""

    number: int
    """Which shard this is, from 1."""
    total: int
    """How many shards the run has."""

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def owns(self, index: int) -> bool:
        """Whether the part or the sample with this index belongs to this shard."""
        return index % self.total == self.number - 1

    def share(self, keys: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """This shard's share of the run's trajectories, in their order."""
        sample_index: dict[tuple[str, int], int] = {}
        return (
            key for key in keys if self.owns(sample_index.setdefault(key[:2], len(sample_index)))
        )

    def first_part(self, taken: Iterable[int]) -> int:
        """This shard's first part index beyond all those that are taken."""
        next_index = max(taken, default=-1) + 1
        return next_index + (self.number - 1 - next_index) % self.total


WHOLE = Shard(1, 1)
"""The only shard of a run that is not shared."""


def parse_shard(text: str) -> Shard:
    """Read a shard in the user's notation.

    Raises:
        ValueError: The text is no K/N with 1 <= K <= N.

    Example:
        >>> parse_shard("3/8")
        Shard(number=3, total=8)
    """
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"it must be K/N with 1 <= K <= N, such as 3/8, not {text!r}")
    return Shard(int(match[1]), int(match[2]))
