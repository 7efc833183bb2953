"""CrossSampler: from a model's logits to its next token. Nucleus -> exchange -> criterion -> decide
-> force -> trace.

One of it sits in each engine of a pair (tensor parallel: in each rank). It knows rows, not
requests; the adapters in `vllm_plugin` turn an engine's batch into rows. It may be called again for
a row that has not moved on (a prompt prefilled in chunks, a request that was preempted): state
moves only when the engine shows that the token was taken.

Dimensions: S sequences of a phase, B rows of a step, V vocabulary, I rows of a step that intervene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from engine.arrays import Bools, Floats, Ints, UInts
from engine.errors import LockstepError
from engine.sampling.coupling import CoupledDraws, couple
from engine.sampling.criterion import ASKS_ENTROPY, Answers, fires, query
from engine.sampling.distribution import Nuclei, Sampling, extrapolate, log_probabilities, nuclei
from engine.sampling.exchange import Rows, exchange, exchange_numbers
from engine.sampling.intervention import Decisions, allowed, decide, follow, score
from engine.sampling.link import Link
from engine.sampling.passes import entropy, put
from engine.sampling.rule import Rule
from engine.sampling.trace import Trace

Side = TypeVar("Side")

# An extrapolated distribution is made of so many of the most probable tokens of the policy that it
# goes towards.
_EXTRAPOLATED_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class SamplerConfig:
    """What stays the same for a whole run.

    policy: "base" or "rl", whose logits this sampler sees. vocab_size: ids from there on are
    padding, never sampled.
    """

    policy: str
    vocab_size: int
    sampling: Sampling
    record_threshold: float
    record_top_k: int


@dataclass(frozen=True, slots=True)
class Ragged:
    """An array a sequence: flat values, and where each sequence's begin [S]."""

    values: Ints
    start: Ints


@dataclass(frozen=True, slots=True)
class Phase:
    """The sequences that one phase carries, in the order in which both engines get them; arrays are
    [S].

    key: noise; forward: base is primary; budget: interventions left when the phase starts; offset:
    tokens of the response that are part of the prompt here. stop_token hands a sequence back that
    cannot intervene any more; None keeps it to its end. chosen: criterion random intervenes exactly
    there, (sequence << 32) + position, ascending. given: the whole responses, which are measured
    and not sampled.
    """

    paired: bool
    rule: Rule
    key: UInts
    forward: Bools
    budget: Ints
    offset: Ints
    stop_token: int | None
    chosen: Ints | None = None
    external: Ragged | None = None


class CrossSampler:
    """Samples one engine's batches, alone or in lock-step with the twin over `link`."""

    def __init__(self, config: SamplerConfig, keeps_trace: bool = True) -> None:
        self.config = config
        self.link: Link | None = None
        self.trace = Trace(config.record_threshold, config.record_top_k) if keeps_trace else None

    def begin(self, phase: Phase) -> None:
        """Forget the last phase. Raises LockstepError when a paired phase has no twin to meet."""
        if phase.paired and self.link is None:
            raise LockstepError("a paired phase was started before the engines had met")
        self._phase = phase
        self._left = phase.budget.copy()
        self._decided = phase.offset - 1  # position of the last decision of each sequence
        self._token = np.full(len(phase.key), -1, np.int64)  # what was decided there
        self._intervened = np.zeros(len(phase.key), np.bool_)  # not yet taken off `_left`
        self._num_decided = 0
        if self.trace:
            self.trace.clear()

    def step(
        self, logits: torch.Tensor, sequence: Ints, emitted: Ints, previous: Ints
    ) -> torch.Tensor:
        """Make the engine's greedy choice in logits [B, V] (float32, changed in place) the token
        that is decided.

        sequence [B]; emitted [B]: tokens this engine has generated for it, < 0 while its prompt is
        not complete; previous [B]: the last of them, -1 if none. Raises LockstepError;
        FloatingPointError on NaN logits.
        """
        phase = self._phase
        position = phase.offset[sequence] + emitted
        live = (emitted >= 0) & (position >= self._decided[sequence])
        self._take(sequence[live], position[live], previous[live])
        if phase.paired and phase.stop_token is not None:
            spent = live & ((self._left[sequence] <= 0) | (position >= phase.rule.stop))
            if spent.any():
                self._force(logits, np.flatnonzero(spent), np.full(spent.sum(), phase.stop_token))
                self._token[sequence[spent]] = phase.stop_token
                live &= ~spent
        work = np.flatnonzero(live)
        if len(work):
            self._decide(logits, work, Rows(sequence[work], position[work], previous[work]))
        return logits

    def end(self, sequence: Ints, emitted: Ints, last: Ints) -> None:
        """The engine has ended these, each [F], with token `last`. Raises LockstepError if that was
        not decided.
        """
        self._take(sequence, self._phase.offset[sequence] + emitted, last)

    def take_num_decided(self) -> int:
        """Positions decided since the last call."""
        num, self._num_decided = self._num_decided, 0
        return num

    def _take(self, sequence: Ints, position: Ints, previous: Ints) -> None:
        """Settle the last decision of each sequence whose token the engine has taken since."""
        moved = position > self._decided[sequence]
        sequence, position, previous = sequence[moved], position[moved], previous[moved]
        wrong = (position > self._decided[sequence] + 1) | (previous != self._token[sequence])
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise LockstepError(
                f"the engine went to position {position[row]} of sequence {sequence[row]} with"
                f" token {previous[row]}; decided was token {self._token[sequence[row]]} at"
                f" position {self._decided[sequence[row]]}"
            )
        self._left[sequence] -= self._intervened[sequence]
        self._intervened[sequence] = False
        self._decided[sequence] = position

    def _decide(self, logits: torch.Tensor, work: Ints, rows: Rows) -> None:
        own = (
            logits if len(work) == len(logits) else logits[torch.from_numpy(work).to(logits.device)]
        )
        log_p = log_probabilities(own[:, : self.config.vocab_size])
        mine = nuclei(log_p, self.config.sampling)
        decisions, other_top1 = self._meet(rows, mine, log_p)
        self._force(logits, work, decisions.token)
        self._token[rows.sequence] = decisions.token
        self._intervened[rows.sequence] = decisions.intervened
        self._num_decided += len(work)
        if self.trace:
            self.trace.append(rows, decisions, mine, other_top1, log_p)

    def _force(self, logits: torch.Tensor, row: Ints, token: Ints) -> None:
        """Leave greedy argmax no choice: one infinite logit a row, instead of writing the whole
        vocabulary.
        """
        put(logits, row, token, torch.inf)

    def _meet(self, rows: Rows, mine: Nuclei, log_p: torch.Tensor) -> tuple[Decisions, Ints]:
        """Decide with the twin, or alone in a solo phase; also the twin's most probable tokens
        (alone: one's own).
        """
        phase, key = self._phase, self._phase.key[rows.sequence]
        catch_up = self.trace.catch_up if self.trace else None
        if not phase.paired:
            if catch_up:
                catch_up()
            return follow(mine, key, rows.position), mine.top1
        assert self.link, "begin() has checked that the twin is there"
        theirs = exchange(self.link, rows, mine, catch_up)
        base, rl = self._base_and_rl(mine, theirs)
        if phase.external:
            return (
                score(
                    base,
                    rl,
                    phase.external.values[phase.external.start[rows.sequence] + rows.position],
                ),
                theirs.top1,
            )
        both = couple(base, rl, phase.forward[rows.sequence], key, rows.position)
        where = allowed(
            phase.rule, rows.position, self._fires(rows, both, log_p), self._left[rows.sequence]
        )
        extrapolated = (
            self._extrapolate(log_p, where) if phase.rule.extrapolate and len(where) else None
        )
        return decide(phase.rule, both, where, extrapolated), theirs.top1

    def _fires(self, rows: Rows, both: CoupledDraws, log_p: torch.Tensor) -> Bools:
        """Where the criterion fires, [B]. What it asks of the full distributions goes over the link
        first.
        """
        phase, criterion = self._phase, self._phase.rule.criterion
        if phase.chosen is not None:
            return _is_in((rows.sequence << 32) + rows.position, phase.chosen)
        answers = None
        if criterion in ASKS_ENTROPY:
            answers = Answers(np.arange(len(log_p)), *self._numbers(entropy(log_p)))
        elif asked := query(criterion, both):
            row, token = (
                torch.from_numpy(index).to(log_p.device) for index in (asked.row, asked.token)
            )
            answers = Answers(asked.row, *self._numbers(log_p[row, token]))
        return fires(criterion, phase.rule.threshold, both, answers)

    def _extrapolate(self, log_p: torch.Tensor, where: Ints) -> Nuclei:
        """Nuclei of the rows `where` [I], beyond the policy that the rule extrapolates to."""
        assert self.link
        rule, own = self._phase.rule, log_p[torch.from_numpy(where).to(log_p.device)]
        num_tokens = min(_EXTRAPOLATED_TOKENS, own.shape[-1])
        goes_there = self.config.policy == rule.extrapolate_to
        self._agree(where)
        proposed = (
            own.topk(num_tokens, -1).indices.cpu().numpy() if goes_there else np.empty(0, np.int64)
        )
        received = exchange_numbers(
            self.link, proposed, 0 if goes_there else len(where) * num_tokens
        )
        token = proposed if goes_there else received.reshape(len(where), num_tokens)
        base, rl = self._numbers(own.gather(1, torch.tensor(token, device=own.device)))
        to, other = (rl, base) if rule.extrapolate_to == "rl" else (base, rl)
        shape = token.shape
        return extrapolate(
            to.reshape(shape), other.reshape(shape), token, rule.extrapolate, self.config.sampling
        )

    def _agree(self, where: Ints) -> None:
        """Raise LockstepError unless the twin intervenes at the same rows."""
        assert self.link
        if not np.array_equal(exchange_numbers(self.link, where, len(where)), where):
            raise LockstepError("the engines would intervene at different rows of one step")

    def _numbers(self, own: torch.Tensor) -> tuple[Floats, Floats]:
        """Base's and rl's numbers, flat, of which `own` are this side's. Both sides get the same
        bits.
        """
        assert self.link
        mine = own.float().cpu().numpy()
        theirs = exchange_numbers(self.link, mine, mine.size)
        base, rl = self._base_and_rl(mine.ravel(), theirs)
        return base.astype(np.float64), rl.astype(np.float64)

    def _base_and_rl(self, mine: Side, theirs: Side) -> tuple[Side, Side]:
        return (mine, theirs) if self.config.policy == "base" else (theirs, mine)


def _is_in(values: Ints, ascending: Ints) -> Bools:
    """Whether each of `values` is in `ascending`; np.isin would sort all of that at every step."""
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(np.searchsorted(ascending, values), len(ascending) - 1)
    return np.asarray(ascending[at] == values)
