"""CrossSampler: from a model's logits to its next token.

A step is nucleus -> exchange -> criterion -> decision -> forced token -> trace. Each engine of a
pair has one sampler (tensor parallel: each rank has one). It knows rows, not requests; the adapters
in `vllm_plugin` turn an engine's batch into rows. An engine may ask again for a row that has not
moved on (a prompt prefilled in chunks, a request that was preempted): the state of a sequence moves
only when the engine shows that it took the token.

Dimensions: S sequences of a phase, B rows of a step, V vocabulary, I rows of a step that intervene,
F sequences that have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch

from engine.arrays import Bools, Floats, Ints, UInts
from engine.errors import LockstepError
from engine.sampling.coupling import CoupledDraws, couple
from engine.sampling.criterion import ASKS_ENTROPY, Answers, fires, query
from engine.sampling.distribution import Nuclei, Sampling, extrapolate
from engine.sampling.exchange import Rows, exchange, exchange_numbers
from engine.sampling.full import FullDistributions
from engine.sampling.intervention import Decisions, allowed_rows, decide, follow
from engine.sampling.link import Link
from engine.sampling.reader import LogitsReader
from engine.sampling.rule import Rule
from engine.sampling.trace import Trace

Side = TypeVar("Side")

# An extrapolated distribution is made of the most probable tokens of the policy it goes towards.
_NUM_EXTRAPOLATED_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """The settings of a sampler, the same for a whole run."""

    policy: str
    """The policy whose logits this sampler sees: "base" or "rl"."""
    vocab_size: int
    """Token ids from this one on are padding, never sampled."""
    sampling: Sampling
    record_threshold: float
    """Divergence in nats from which on a row of the trace has a top-k list."""
    record_top_k: int
    """Tokens of such a list."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The sequences that one phase carries, in the order in which both engines get them."""

    paired: bool
    """Whether both engines carry them in lock-step, else this one alone."""
    rule: Rule
    key: UInts
    """Noise key of each sequence's sample [S]."""
    forward: Bools
    """Whether base is the primary of each sequence [S], else rl."""
    budget: Ints
    """Interventions that each sequence has left when the phase begins [S]."""
    offset: Ints
    """Tokens of each response that are part of its prompt in this phase [S]."""
    stop_token: int | None
    """Hands a sequence back that cannot intervene any more; None keeps it to its end."""
    random_positions: Ints | None = None
    """Where criterion random intervenes: (sequence << 32) + position of each one, ascending.

    None where it draws at its rate, and for other criteria.
    """


_NO_SEQUENCES = Phase(
    paired=False,
    rule=Rule(),
    key=np.empty(0, np.uint64),
    forward=np.empty(0, np.bool_),
    budget=np.empty(0, np.int64),
    offset=np.empty(0, np.int64),
    stop_token=None,
)


class Progress(NamedTuple):
    """What a sampler has decided over some steps."""

    num_tokens: int
    checksum: int
    """CRC-32 of all tokens in their order, equal on all ranks of an engine."""

    def after(self, token: Ints) -> Progress:
        """The progress after one more step, which has decided the tokens [B]."""
        return Progress(self.num_tokens + len(token), crc32(token.tobytes(), self.checksum))


@dataclass(slots=True)
class _State:
    """How far the sequences of a phase have come."""

    phase: Phase
    budget_left: Ints
    """Interventions left [S]."""
    position: Ints
    """Position of the last decision [S]."""
    token: Ints
    """Token that was decided there [S]; -1 before the first decision."""
    intervened: Bools
    """Whether that decision is an intervention that is not yet taken off `budget_left` [S]."""
    progress: Progress
    """What was decided since it was last asked for."""

    @classmethod
    def at_start(cls, phase: Phase) -> _State:
        """The state of a phase that has decided nothing."""
        return cls(
            phase,
            budget_left=phase.budget.copy(),
            position=phase.offset - 1,
            token=np.full(len(phase.key), -1, np.int64),
            intervened=np.zeros(len(phase.key), np.bool_),
            progress=Progress(0, 0),
        )


class CrossSampler:
    """Samples one engine's batches, alone or in lock-step with the twin over `link`.

    Args:
        config: The settings of the run.
        keeps_trace: Whether this sampler records a trace; of the ranks of an engine one does.
    """

    def __init__(self, config: SamplerConfig, keeps_trace: bool = True) -> None:
        self.config = config
        self.link: Link | None = None
        self.trace = Trace(config.record_threshold, config.record_top_k) if keeps_trace else None
        self._state = _State.at_start(_NO_SEQUENCES)
        self._reader = LogitsReader(config.vocab_size, config.sampling)

    def begin(self, phase: Phase) -> None:
        """Begin a phase and forget the last one.

        Raises:
            LockstepError: The phase is paired and this sampler has no link to a twin.
        """
        if phase.paired and self.link is None:
            raise LockstepError("a paired phase was started before the engines had met")
        self._state = _State.at_start(phase)
        if self.trace:
            self.trace.clear()

    def step(
        self, logits: torch.Tensor, sequence: Ints, emitted: Ints, previous: Ints | torch.Tensor
    ) -> torch.Tensor:
        """Make the token that is decided the engine's greedy choice.

        Args:
            logits: Logits [B, V] in float32, on the CPU or a device, changed in place.
            sequence: Index of each row's sequence in the phase [B].
            emitted: Tokens that this engine has generated for it [B]; < 0 while its prompt is not
                complete.
            previous: The last of these tokens [B], of no meaning where there is none; on a device,
                in int32, if the engine has them there only.

        Returns:
            The logits.

        Raises:
            LockstepError: The engine did not take a decided token, or the twin is at other rows,
                silent or gone.
            FloatingPointError: The logits hold NaN or infinity.
        """
        state, phase = self._state, self._state.phase
        position = phase.offset[sequence] + emitted
        live = (emitted >= 0) & (position >= state.position[sequence])
        if not live.any():
            return logits
        full = self._reader.read(logits, previous)
        rows = Rows(sequence, position, np.where(emitted > 0, full.previous(), -1))
        self._settle(sequence[live], position[live], rows.previous[live])
        handed_back = np.empty(0, np.int64)
        if phase.paired and phase.stop_token is not None:
            spent = live & ((state.budget_left[sequence] <= 0) | (position >= phase.rule.stop))
            if spent.any():
                handed_back = np.flatnonzero(spent)
                live &= ~spent
        self._decide(full, rows, np.flatnonzero(live), handed_back)
        return logits

    def end(self, sequence: Ints, emitted: Ints, last: Ints) -> None:
        """Settle sequences that the engine has ended.

        Args:
            sequence: Their indices in the phase [F].
            emitted: Tokens that this engine has generated for each [F].
            last: The last of these tokens [F].

        Raises:
            LockstepError: Another token was decided.
        """
        self._settle(sequence, self._state.phase.offset[sequence] + emitted, last)

    def take_progress(self) -> Progress:
        """What was decided since the last call."""
        progress, self._state.progress = self._state.progress, Progress(0, 0)
        return progress

    def _settle(self, sequence: Ints, position: Ints, previous: Ints) -> None:
        """Settle the last decision of each sequence whose token the engine has taken since."""
        state = self._state
        moved = position > state.position[sequence]
        sequence, position, previous = sequence[moved], position[moved], previous[moved]
        wrong = (position > state.position[sequence] + 1) | (previous != state.token[sequence])
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise LockstepError(
                f"the engine went to position {position[row]} of sequence {sequence[row]} with"
                f" token {previous[row]}; decided was token {state.token[sequence[row]]} at"
                f" position {state.position[sequence[row]]}"
            )
        state.budget_left[sequence] -= state.intervened[sequence]
        state.intervened[sequence] = False
        state.position[sequence] = position

    def _decide(
        self, full: FullDistributions, batch: Rows, chosen: Ints, handed_back: Ints
    ) -> None:
        """Decide the rows `chosen` of a batch, and force stop tokens on those `handed_back`."""
        state = self._state
        stops = handed_back
        if len(handed_back):
            stops = np.full(len(handed_back), state.phase.stop_token)
            state.token[batch.sequence[handed_back]] = stops
        if not len(chosen):
            full.force(handed_back, stops, None)
            return
        rows = Rows(batch.sequence[chosen], batch.position[chosen], batch.previous[chosen])
        full.choose(chosen)
        mine = full.nuclei()
        if state.phase.paired:
            decisions, other_top1 = self._decide_with_twin(rows, mine, full)
        else:
            decisions, other_top1 = self._decide_alone(rows, mine), mine.top1
        wanted = None
        if self.trace:
            wanted = self.trace.wanted(decisions, other_top1)
        forced, token = chosen, decisions.token
        if len(handed_back):
            forced, token = np.concatenate((chosen, handed_back)), np.concatenate((token, stops))
        measured = full.force(forced, token, wanted)
        state.token[rows.sequence] = decisions.token
        state.intervened[rows.sequence] = decisions.intervened
        state.progress = state.progress.after(decisions.token)
        if self.trace and measured is not None:
            self.trace.append(rows, decisions, mine, other_top1, measured)

    def _decide_alone(self, rows: Rows, mine: Nuclei) -> Decisions:
        if self.trace:
            self.trace.catch_up()
        return follow(mine, self._state.phase.key[rows.sequence], rows.position)

    def _decide_with_twin(
        self, rows: Rows, mine: Nuclei, full: FullDistributions
    ) -> tuple[Decisions, Ints]:
        """The decisions, and the twin's most probable tokens [B]."""
        assert self.link, "begin() has checked that the twin is there"
        state, phase = self._state, self._state.phase
        theirs = exchange(self.link, rows, mine, self.trace.catch_up if self.trace else None)
        base, rl = self._order(mine, theirs)
        forward, key = phase.forward[rows.sequence], phase.key[rows.sequence]
        draws = couple(base, rl, forward, key, rows.position)
        fired, budget_left = self._fires(rows, draws, full), state.budget_left[rows.sequence]
        intervening = allowed_rows(phase.rule, rows.position, fired, budget_left)
        extrapolated = None
        if phase.rule.extrapolate and len(intervening):
            extrapolated = self._extrapolate(full, intervening)
        return decide(phase.rule, draws, intervening, extrapolated), theirs.top1

    def _fires(self, rows: Rows, draws: CoupledDraws, full: FullDistributions) -> Bools:
        """Where the criterion fires [B], after an exchange of the numbers that it asks for."""
        phase = self._state.phase
        criterion = phase.rule.criterion
        if phase.random_positions is not None:
            return _is_in((rows.sequence << 32) + rows.position, phase.random_positions)
        answers = None
        if criterion in ASKS_ENTROPY:
            numbers = self._swap_numbers(full.entropy())
            answers = Answers(np.arange(len(rows.sequence)), *numbers)
        elif needed := query(criterion, draws):
            numbers = self._swap_numbers(full.log_p(needed.row, needed.token))
            answers = Answers(needed.row, *numbers)
        return fires(criterion, phase.rule.threshold, draws, answers)

    def _extrapolate(self, full: FullDistributions, rows: Ints) -> Nuclei:
        """Extrapolated nuclei of the given rows [I].

        The side whose policy the rule extrapolates to proposes the tokens.
        """
        assert self.link
        rule = self._state.phase.rule
        shape = (len(rows), min(_NUM_EXTRAPOLATED_TOKENS, self.config.vocab_size))
        self._check_same_rows(rows)
        if self.config.policy == rule.extrapolate_to:
            token = full.top(rows, shape[1])
            exchange_numbers(self.link, token, 0)
        else:
            num_tokens = shape[0] * shape[1]
            token = exchange_numbers(self.link, np.empty(0, np.int64), num_tokens).reshape(shape)
        own = full.log_p(np.repeat(rows, shape[1]), token.ravel())
        base, rl = self._swap_numbers(own)
        to, other = (rl, base) if rule.extrapolate_to == "rl" else (base, rl)
        return extrapolate(
            to.reshape(shape), other.reshape(shape), token, rule.extrapolate, self.config.sampling
        )

    def _check_same_rows(self, rows: Ints) -> None:
        """Check that the twin intervenes at the same rows."""
        assert self.link
        if not np.array_equal(exchange_numbers(self.link, rows, len(rows)), rows):
            raise LockstepError("the engines would intervene at different rows of one step")

    def _swap_numbers(self, mine: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
        """Base's and rl's numbers; `mine` are this side's. Both sides get the same bits."""
        assert self.link
        base, rl = self._order(mine, exchange_numbers(self.link, mine, mine.size))
        return base.astype(np.float64), rl.astype(np.float64)

    def _order(self, mine: Side, theirs: Side) -> tuple[Side, Side]:
        """This side's and the twin's part, as base's and rl's."""
        return (mine, theirs) if self.config.policy == "base" else (theirs, mine)


def _is_in(values: Ints, ascending: Ints) -> Bools:
    """Whether each value is in `ascending`, which np.isin would sort anew at every step."""
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    index = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[index] == values)
