"""Whether an idle engine should load its twin's weights and help: what it saves, what it costs.

Everything is taken from what the pair has seen so far. Nothing here knows engines or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    _num_tokens: dict[str, int] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _lengths: list[int] = field(default_factory=lambda: [0, 0])

    @classmethod
    def before_any(cls, weight_bytes: int) -> Forecast:
        """The forecast of a pair that has not run.

        Args:
            weight_bytes: Size of the weights that an engine loads onto one device.
        """
        return cls(weight_bytes / _FIRST_RATE)

    def note_tokens(self, engine: str, num_tokens: int, seconds: float) -> None:
        """Learn that an engine has decided tokens in so many seconds."""
        self._num_tokens[engine] = self._num_tokens.get(engine, 0) + num_tokens
        self._seconds[engine] = self._seconds.get(engine, 0.0) + seconds

    def note_lengths(self, num_sequences: int, num_tokens: int) -> None:
        """Learn the tokens that finished tails had in all."""
        self._lengths[0] += num_sequences
        self._lengths[1] += num_tokens

    def tail_tokens(self, num_tails: int, room: int) -> float:
        """Tokens that tails will have.

        Args:
            num_tails: How many tails.
            room: Tokens that they may have at most, in all.
        """
        count, total = self._lengths
        if count < _MIN_LENGTHS:
            return room / 2
        return min(num_tails * total / count, room)

    def pays(self, num_tails: int, room: int) -> bool | None:
        """Whether an idle engine should take a share of tails that wait for the other engine.

        Args:
            num_tails: How many tails wait.
            room: Tokens that they may have at most, in all.

        Returns:
            None while no engine's speed is known.
        """
        seconds = sum(self._seconds.values())
        if not seconds:
            return None
        speed = sum(self._num_tokens.values()) / seconds
        return self.tail_tokens(num_tails, room) > _WORTH * self.switch_seconds * speed
