"""How long the rest of a run takes: a roofline's speed, corrected by what the run itself shows.

The speed is corrected as soon as tokens are decided, the length of a response as responses finish:
first it is what it may be at most. Pure arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from engine.models.roofline import PairRoofline

# A sequence in flight counts as so much of a finished one: half, less what the spread of lengths
# takes (the renewal theorem: (1 - cv^2) / 2, with a coefficient of variation cv of some 0.5).
_PART_IN_FLIGHT = 0.4


class Seen(NamedTuple):
    """What a run has done in this session."""

    num_tokens: int
    """Tokens decided, of responses in flight too."""
    num_made: int
    """Trajectories finished."""
    working_s: float
    """Seconds since the first pair was ready."""
    num_tokens_then: int
    """Tokens that were decided when the last of them were known: engines tell of many at once."""


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """What is expected of a run before it begins."""

    roofline: PairRoofline | None
    """The speed of each pair; None if nothing is known of it."""
    num_pairs: int
    num_slots: int
    """Sequences that each pair has in flight, at most."""
    prompt_tokens: float
    length: float
    """Tokens decided for a trajectory."""
    is_limit: bool
    """Whether `length` is a limit, else the average."""

    def remaining_seconds(self, seen: Seen, num_left: int) -> float | None:
        """Seconds that the trajectories which are left will take; None if nothing is known yet.

        Args:
            seen: What has been done.
            num_left: Trajectories that are not finished; those in flight are among them.
        """
        if not num_left:
            return 0.0
        length = self.mean_length(seen, num_left)
        num_tokens = max(length * (seen.num_made + num_left) - seen.num_tokens, num_left)
        rate = self._rate(seen, length, num_left)
        return None if rate is None else num_tokens / rate

    def mean_length(self, seen: Seen, num_left: int) -> float:
        """Tokens that a trajectory takes, on average over the run.

        All tokens so far over all trajectories so far, a part of each in flight among them. Short
        responses finish first, so this counts in full only when half as many are finished as are
        in flight.
        """
        if not self.is_limit or not seen.num_made:
            return self.length
        num_in_flight = min(self._capacity, num_left)
        observed = seen.num_tokens_then / (seen.num_made + _PART_IN_FLIGHT * num_in_flight)
        weight = min(1.0, 2 * seen.num_made / num_in_flight)
        return min(self.length, weight * observed + (1 - weight) * self.length)

    @property
    def _capacity(self) -> int:
        return self.num_pairs * self.num_slots

    def _rate(self, seen: Seen, length: float, num_left: int) -> float | None:
        """Tokens a second from now on: at longer contexts, and with fewer in flight at the end."""
        rows = min(self._capacity, num_left)
        is_measured = seen.num_tokens > 0 and seen.working_s > 0
        measured = seen.num_tokens / seen.working_s if is_measured else None
        if self.roofline is None:
            return None if measured is None else measured * rows / self._capacity
        coming = self._expected_rate(rows, length / 2)
        if measured is None:
            return coming
        num_before = min(self._capacity, seen.num_made + num_left)
        position = min(seen.num_tokens / num_before, length) / 2
        return coming * measured / self._expected_rate(num_before, position)

    def _expected_rate(self, rows: int, position: float) -> float:
        """Tokens a second that the roofline expects where `rows` are in flight in all pairs."""
        assert self.roofline is not None
        context = self.prompt_tokens + position
        return rows / self.roofline.step_seconds(rows / self.num_pairs, context)
