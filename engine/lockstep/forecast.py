"""Whether an idle engine should load its twin's weights and help: what it saves, what it costs.

Everything is taken from what the pair has seen so far. Nothing here knows engines or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

# A switch is worth it from so many times its own seconds on. With n switches' worth of work left,
# two engines need (n + 1) / 2 and another one for the way back, so it pays from 3 on.
_WORTH = 4.0
# Bytes a second at which weights are loaded, until that was measured: a plain disk.
_FIRST_RATE = 1e9
# A mean of fewer lengths says too little, and it is biased: short responses end first.
_MIN_LENGTHS = 16


@dataclass(slots=True)
class Forecast:
    """What a pair has seen: how fast an engine is, how long tails are, what a switch takes."""

    switch_seconds: float
    """Seconds that an engine needs to load its twin's weights."""
    _num_tokens: int = 0
    _seconds: float = 0.0
    _num_tails: int = 0
    _tail_tokens: int = 0

    @classmethod
    def before_any(cls, checkpoint_bytes: int) -> Forecast:
        """The forecast of a pair that has not run.

        Args:
            checkpoint_bytes: Size of the checkpoint that an engine reads for it.
        """
        return cls(checkpoint_bytes / _FIRST_RATE)

    def note_tokens(self, num_tokens: int, seconds: float) -> None:
        """Learn that one engine has decided tokens in so many seconds."""
        self._num_tokens += num_tokens
        self._seconds += seconds

    def note_lengths(self, num_sequences: int, num_tokens: int) -> None:
        """Learn the tokens that finished tails had in all."""
        self._num_tails += num_sequences
        self._tail_tokens += num_tokens

    def tail_tokens(self, num_tails: int, room: int) -> float:
        """Tokens that tails will have.

        Args:
            num_tails: How many tails.
            room: Tokens that they may have at most, in all.
        """
        if self._num_tails < _MIN_LENGTHS:
            return room / 2
        return min(num_tails * self._tail_tokens / self._num_tails, room)

    def pays(self, num_tails: int, room: int) -> bool | None:
        """Whether an idle engine should take a share of tails that wait for the other engine.

        Args:
            num_tails: How many tails wait.
            room: Tokens that they may have at most, in all.

        Returns:
            None while no engine's speed is known.
        """
        if not self._seconds:
            return None
        speed = self._num_tokens / self._seconds
        return self.tail_tokens(num_tails, room) > _WORTH * self.switch_seconds * speed
