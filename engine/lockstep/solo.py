"""The part of a lease that primaries continue alone, shared out to both engines.

Each engine begins with the tails of its own policy. One that has none left loads the weights of its
twin, where that pays (`forecast`), and takes tails from the same queue. Tails are pulled in pieces
while others are under way: no slot waits for a piece to end, and both engines end together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from engine.core import POLICIES
from engine.lockstep.engine_pair import EnginePair
from engine.lockstep.forecast import Forecast
from engine.lockstep.worker import Decided, Finished, Requests, Switched
from engine.sampling.sampler import Phase

_TWIN: dict[str, str] = dict(zip(POLICIES, reversed(POLICIES), strict=True))
# Of the slots. Smaller pieces end closer together, and each costs a message to and fro.
_PIECE = 0.5


@dataclass(slots=True)
class _Queue:
    """The tails of one primary."""

    phase: Phase
    requests: Requests
    num_taken: int = 0

    @property
    def num_waiting(self) -> int:
        return len(self.requests.prompts) - self.num_taken

    @property
    def room(self) -> int:
        """Tokens that those that wait may have at most."""
        return sum(self.requests.max_tokens[self.num_taken :])

    def take(self, count: int) -> Requests:
        """The next requests, so many of them at most."""
        start = self.num_taken
        self.num_taken = min(start + count, len(self.requests.prompts))
        return self.requests.piece(start, self.num_taken)


@dataclass(slots=True)
class _Engine:
    """What an engine does."""

    primary: str | None = None
    """Whose tails it has begun to carry; None where it has carried all to their end."""
    num_left: int = 0
    """Tails that its last call may leave under way."""
    is_free: bool = True
    """Whether it waits to be told."""


class SoloPhase:
    """The tails of a lease.

    Args:
        engines: The pair, whose engines hold the weights of their own policies.
        work: Primary -> its tails as a phase.
        num_slots: Sequences that an engine has in flight.
        forecast: What the pair has seen; learns from what it sees here.
    """

    def __init__(
        self,
        engines: EnginePair,
        work: Mapping[str, tuple[Phase, Requests]],
        num_slots: int,
        forecast: Forecast,
    ) -> None:
        self._engines, self._num_slots, self._forecast = engines, num_slots, forecast
        self._queues = {primary: _Queue(*phase) for primary, phase in work.items()}
        self._state: dict[str, _Engine] = {engine: _Engine() for engine in POLICIES}

    def messages(self) -> Iterator[tuple[str, Finished] | Decided]:
        """Carry all tails to their end.

        Yields:
            What is finished, with its primary, and `Decided` messages.

        Raises:
            EngineError: As `EnginePair.next_message`.
        """
        self._engines.switch_back()
        self._employ()
        while any(state.primary for state in self._state.values()):
            engine, message = self._engines.next_message()
            state = self._state[engine]
            match message:
                case None:
                    state.is_free = True
                case Switched():
                    self._forecast.switch_seconds = message.seconds
                case Decided():
                    self._forecast.note_tokens(message.num_tokens, message.seconds)
                    yield message
                case Finished():
                    assert state.primary
                    self._forecast.note_lengths(len(message.emitted), int(message.emitted.sum()))
                    yield state.primary, message
            self._employ()

    def _employ(self) -> None:
        """Give every free engine something to do, if there is anything that pays."""
        # First those with tails of their own: what they take at once is not for others.
        for engine in sorted(POLICIES, key=lambda engine: not self._num_waiting(engine)):
            state = self._state[engine]
            if state.is_free:
                state.is_free = not (self._go_on(engine, state) or self._begin(engine, state))

    def _go_on(self, engine: str, state: _Engine) -> bool:
        """Take further tails, or end those under way. Returns whether there are any."""
        if state.primary and (self._num_waiting(state.primary) or state.num_left):
            self._carry(engine, state, self._piece, None)
            return True
        state.primary = None
        return False

    def _begin(self, engine: str, state: _Engine) -> bool:
        """Begin with tails, or with a switch of weights. Returns whether there is any use."""
        held = self._engines.holds[engine]
        if self._num_waiting(held):
            state.primary, queue = held, self._queues[held]
            count = max(self._num_slots, min(self._num_slots + self._piece, queue.num_waiting // 2))
            if held == engine and not self._may_be_shared(queue):
                count = queue.num_waiting
            self._carry(engine, state, count, queue.phase)
        elif held != engine:  # on its way back while the other engine ends
            self._engines.begin_switch(engine, engine)
        elif self._engines.may_switch and self._pays_to_help(_TWIN[engine]):
            self._engines.begin_switch(engine, _TWIN[engine])
        else:
            return False
        return True

    def _carry(self, engine: str, state: _Engine, count: int, phase: Phase | None) -> None:
        assert state.primary
        requests = self._queues[state.primary].take(count)
        state.num_left = self._num_slots if self._num_waiting(state.primary) else 0
        self._engines.begin(engine, phase, requests, state.num_left)

    def _num_waiting(self, primary: str) -> int:
        queue = self._queues.get(primary)
        return queue.num_waiting if queue else 0

    def _pays_to_help(self, twin: str) -> bool:
        return bool(self._num_waiting(twin) and self._pays(self._queues[twin]))

    def _pays(self, queue: _Queue) -> bool | None:
        return self._forecast.pays(queue.num_waiting, queue.room)

    def _may_be_shared(self, queue: _Queue) -> bool:
        """Whether the twin may come to help, so that the queue is not to be emptied at once."""
        return self._engines.may_switch and self._pays(queue) is not False

    @property
    def _piece(self) -> int:
        return ceil(self._num_slots * _PIECE)
