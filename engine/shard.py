"""Shards: N processes that share one run, each with its own trajectories and its own numbers of
parts.

Shard K of N (from 1) has every N-th sample of a problem, with all its directions and budgets, which
share tokens; and the part numbers that leave K - 1 when divided by N. So nothing is made twice and
no file is written by two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.core import Trajectory


class Shard(NamedTuple):
    """Shard `number` of `total`, from 1."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    def owns(self, index: int) -> bool:
        """Whether the part, or the sample of the run, with this index is this shard's."""
        return index % self.total == self.number - 1

    def share(self, keys: Iterable[Trajectory]) -> Iterator[Trajectory]:
        """Those of the run's trajectories that are this shard's, in their order."""
        seen: dict[tuple[str, int], int] = {}
        return (key for key in keys if self.owns(seen.setdefault(key[:2], len(seen))))

    def first_part(self, taken: Iterable[int]) -> int:
        """The first part index of this shard's beyond all that are taken."""
        after = max(taken, default=-1) + 1
        return after + (self.number - 1 - after) % self.total


WHOLE = Shard(1, 1)


def parse_shard(text: str) -> Shard:
    """Shard 3 of 8 from "3/8". Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"it must be K/N with 1 <= K <= N, such as 3/8, not {text!r}")
    return Shard(int(match[1]), int(match[2]))
