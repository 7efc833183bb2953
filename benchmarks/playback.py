"""Engines that play prepared messages back: what two workers would send, without a model, as fast
as it is taken.

`Playback` stands where a `LeaseRunner` has its `EnginePair`. One lease of responses is
made up, of the synthetic run's tokens, and comes again in every lease; the messages of a phase are
cut out of it once, as `worker.PolicyWorker` would have collected them, and kept. So a warm-up over
one lease makes all that is ever sent.

Dimensions: T responses of a lease, S sequences of a phase.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from benchmarks.synthetic_tokens import token_columns
from engine.arrays import Ints
from engine.core import POLICIES
from engine.lockstep.fork import branch
from engine.lockstep.worker import SEQUENCES_PER_MESSAGE, Decided, Finished, Requests
from engine.sampling.sampler import Phase

MEDIAN_LENGTH, SPREAD, MAX_LENGTH = 1_500, 0.6, 8_000  # tokens of a response; lognormal, capped


class Lease:
    """T made-up responses, base primary in every other one; what either policy has traced of
    them.
    """

    def __init__(self, num_responses: int, median_length: int = MEDIAN_LENGTH) -> None:
        rng = np.random.default_rng(0)
        drawn = rng.lognormal(np.log(median_length), SPREAD, num_responses)
        self.length: Ints = np.clip(drawn, 2, MAX_LENGTH).astype(np.int64)
        self.start: Ints = np.cumsum(self.length) - self.length
        self._response = np.repeat(np.arange(num_responses), self.length)
        self._position = np.arange(len(self._response)) - self.start[self._response]
        length = self.length[self._response]
        self._columns = token_columns(
            rng, self._position / length, self._position == length - 1, self._response % 2 == 0
        )

    def spent(self, response: int, budget: int) -> int:
        """Rows up to the one that spends the budget."""
        rows = slice(self.start[response], self.start[response] + self.length[response])
        return branch(
            self._columns["intervened"][rows], self._columns["effective"][rows], budget
        ).spent

    def trace(self, policy: str, paired: bool, rows: Ints, sequence: Ints) -> pa.RecordBatch:
        """What the policy's sampler recorded of these rows, as `trace.Trace.collect` gives it;
        sequence [rows].
        """
        other = POLICIES[1 - POLICIES.index(policy)]
        sources = {
            name: name for name in ("token", "intervened", "effective", "primary_token", "js")
        }
        sources |= {
            name: f"{name}_{policy}" for name in ("nucleus", "top1", "entropy", "logp", "rank")
        }
        sources |= {
            f"{name}_of_other_top1": f"{name}_{policy}_of_top1_{other}" for name in ("logp", "rank")
        }
        sources["top_k"] = f"topk_{policy}"
        columns = {
            "sequence": pa.array(sequence.astype(np.int32)),
            "position": pa.array(self._position[rows], pa.int32()),
        }
        taken = {name: _taken(self._columns[source], rows) for name, source in sources.items()}
        return pa.RecordBatch.from_pydict(columns | (taken if paired else taken | _alone(taken)))


class Playback:
    """As `EnginePair`: the phases that it is asked for, answered out of a lease."""

    def __init__(self, lease: Lease) -> None:
        self._lease, self._response_of = lease, dict[tuple[int, bool], int]()
        self._made: dict[tuple[object, ...], list[Finished]] = {}
        self._turns = deque[tuple[str, Iterator[Finished | Decided]]]()
        self.may_switch, self.holds = False, {policy: policy for policy in POLICIES}

    def place(self) -> str:
        return "nowhere"

    def load(self) -> int:
        return 0

    def kill(self) -> None:
        self._response_of.clear()
        self._turns.clear()

    def stream(
        self, work: Mapping[str, tuple[Phase, Requests]]
    ) -> Iterator[tuple[str, Finished | Decided]]:
        """The messages of every policy's phase, in turns."""
        for policy, phase in work.items():
            self.begin(policy, *phase)
        while self._turns:
            policy, message = self.next_message()
            if message is not None:
                yield policy, message

    def switch_back(self) -> None: ...

    def begin(
        self, policy: str, phase: Phase | None, requests: Requests, num_left: int = 0
    ) -> None:
        """Have the messages of a phase ready; without switches of weights it comes as a whole."""
        assert phase and not num_left
        self._turns.append((policy, iter(self._with_progress(policy, phase))))

    def next_message(self) -> tuple[str, Finished | Decided | None]:
        """The next message of the engine whose turn it is; None at the end of its phase."""
        policy, messages = self._turns.popleft()
        message = next(messages, None)
        if message is not None:
            self._turns.append((policy, messages))
        return policy, message

    def _with_progress(self, policy: str, phase: Phase) -> Iterator[Finished | Decided]:
        for message in self._messages(policy, phase):
            yield message
            yield Decided(len(message.trace), 1.0)

    def _messages(self, policy: str, phase: Phase) -> list[Finished]:
        response, budget = (
            self._responses(phase),
            phase.budget if phase.stop_token is not None else None,
        )
        wanted = (
            policy,
            phase.paired,
            response.tobytes(),
            phase.offset.tobytes(),
            budget is None or budget.tobytes(),
        )
        if wanted not in self._made:
            places = range(0, len(response), SEQUENCES_PER_MESSAGE)
            parts = [np.arange(at, min(at + SEQUENCES_PER_MESSAGE, len(response))) for at in places]
            self._made[wanted] = [
                self._message(policy, phase.paired, part, response, phase.offset, budget)
                for part in parts
            ]
        return self._made[wanted]

    def _responses(self, phase: Phase) -> Ints:
        """The response that each sequence is, [S]: as they come in, anew when the lease is
        through.
        """
        return np.array(
            [
                self._response(name)
                for name in zip(phase.key.tolist(), phase.forward.tolist(), strict=True)
            ]
        )

    def _response(self, name: tuple[int, bool]) -> int:
        if name not in self._response_of and len(self._response_of) == len(self._lease.length):
            self._response_of.clear()
        return self._response_of.setdefault(name, len(self._response_of))

    def _message(
        self,
        policy: str,
        paired: bool,
        sequence: Ints,
        response: Ints,
        offset: Ints,
        budget: Ints | None,
    ) -> Finished:
        """These sequences of a phase; a sequence whose budget is spent before its end is handed
        back.
        """
        which, lease = response[sequence], self._lease
        end = lease.length[which]
        if budget is not None:
            left = zip(which.tolist(), budget[sequence].tolist(), strict=True)
            end = np.array([lease.spent(response, budget) for response, budget in left])
        size = end - offset[sequence]
        rows = np.concatenate(
            [
                lease.start[r] + np.arange(a, b)
                for r, a, b in zip(which, offset[sequence], end, strict=True)
            ]
        )
        trace = lease.trace(policy, paired, rows, np.repeat(sequence, size))
        return Finished(
            sequence, size + (end < lease.length[which]), np.ones(len(sequence), np.bool_), trace
        )


def _taken(column: object, rows: Ints) -> pa.Array:
    """Some rows of a column, as numbers or already in Arrow; 64-bit numbers as the trace has
    them.
    """
    array = column if isinstance(column, pa.Array) else pa.array(column)
    taken = array.take(pa.array(rows))
    return taken.cast(pa.int32()) if taken.type == pa.int64() else taken


def _alone(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """What is different in rows that a policy decides without its twin: no divergence, so nothing
    follows from it.
    """
    size = len(columns["token"])
    none = pa.array(np.zeros(size, np.bool_))
    return {
        "intervened": none,
        "effective": none,
        "primary_token": pa.nulls(size, pa.int32()),
        "js": pa.array(np.zeros(size, np.float32)),
        "top_k": pa.nulls(size, columns["top_k"].type),
    }
