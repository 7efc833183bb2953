"""CrossSampler: two of them over a real link agree with a slow oracle that walks one sequence at a
time, on the CPU and on a pretended GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from engine.errors import LockstepError
from engine.sampling import on_device
from engine.sampling import plain as torch_passes
from engine.sampling.coupling import couple, sample
from engine.sampling.distribution import Sampling, log_probabilities, nuclei
from engine.sampling.intervention import MAX_INTERVENTIONS, allowed_rows, decide
from engine.sampling.link import Link, Listener, connect
from engine.sampling.noise import stream_key
from engine.sampling.rule import Rule
from engine.sampling.sampler import CrossSampler, Phase, SamplerConfig
from tests.support import pretended_gpu

VOCAB, PADDED = 40, 48
STOP = 0
MAX_TOKENS = 24
SAMPLING = Sampling(1.0, 0.9)
THRESHOLD = 0.05

Links = tuple[Link, Link]
Array = np.ndarray[Any, np.dtype[np.int64]]


def logits_of(policy: str, sequence: int, prefix: Sequence[int]) -> torch.Tensor:
    """What a model says after this prefix: the policies mostly agree, and seldom stop. Padding is
    highest.
    """
    rng = np.random.default_rng([sequence, len(prefix), *prefix[-2:]])
    row, shift = 2 * rng.standard_normal(PADDED), 3 * rng.standard_normal(PADDED)
    if policy == "rl" and rng.random() < 0.4:
        row += shift
    row[STOP] -= 2
    row[VOCAB:] = 50
    return torch.tensor(row, dtype=torch.float32)


def config(policy: str) -> SamplerConfig:
    return SamplerConfig(policy, VOCAB, SAMPLING, record_threshold=0.1, record_top_k=3)


def phase(
    num: int,
    budget: int = MAX_INTERVENTIONS,
    paired: bool = True,
    offset: Sequence[int] | None = None,
) -> Phase:
    """`num` sequences, forward and reverse in turn."""
    return Phase(
        paired=paired,
        rule=Rule(threshold=THRESHOLD),
        key=np.array([stream_key(0, "p", n) for n in range(num)], np.uint64),
        forward=np.arange(num) % 2 == 0,
        budget=np.full(num, budget),
        offset=np.zeros(num, np.int64) if offset is None else np.array(offset),
        stop_token=STOP,
    )


@dataclass
class Oracle:
    """One sequence, token by token, from the pure functions: the slow and obvious way."""

    tokens: list[int] = field(default_factory=list)
    intervened: list[bool] = field(default_factory=list)
    handed_back: bool = False


def oracle(n: int, p: Phase, max_tokens: int = MAX_TOKENS) -> Oracle:
    made, left = Oracle(), int(p.budget[n])
    while len(made.tokens) < max_tokens and made.tokens[-1:] != [STOP]:
        if left <= 0:
            made.handed_back = True
            break
        base, rl = (
            nuclei(log_probabilities(logits_of(policy, n, made.tokens)[None, :VOCAB]), SAMPLING)
            for policy in ("base", "rl")
        )
        position = np.array([len(made.tokens)])
        draws = couple(base, rl, p.forward[n : n + 1], p.key[n : n + 1], position)
        fired = draws.js > p.rule.threshold
        decision = decide(p.rule, draws, allowed_rows(p.rule, position, fired, np.array([left])))
        made.tokens.append(int(decision.token[0]))
        made.intervened.append(bool(decision.intervened[0]))
        left -= int(decision.intervened[0])
    return made


def plain(n: int, p: Phase, policy: str, prefix: Sequence[int] = ()) -> list[int]:
    """What a policy samples alone, from a prefix on; the whole response."""
    tokens = list(prefix)
    while len(tokens) < MAX_TOKENS and tokens[-1:] != [STOP]:
        mine = nuclei(log_probabilities(logits_of(policy, n, tokens)[None, :VOCAB]), SAMPLING)
        tokens.append(int(sample(mine, p.key[n : n + 1], np.array([len(tokens)]))[0]))
    return tokens


class Engine:
    """A toy of an engine: steps a batch of sequences to their ends, taking the argmax, `slots` at a
    time.

    Options play what a real engine does: `order` shuffles a step's rows, `garbage` first steps
    every row that has no output yet with senseless logits (a prompt in chunks), `twice` steps every
    batch twice and takes the second.
    """

    def __init__(
        self,
        sampler: CrossSampler,
        order: int | None = None,
        garbage: bool = False,
        twice: bool = False,
    ):
        self.sampler, self.garbage, self.twice = sampler, garbage, twice
        self.random = None if order is None else np.random.default_rng(order)

    def run(
        self, p: Phase, prefixes: Sequence[Sequence[int]] | None = None, slots: int = 5
    ) -> list[list[int]]:
        """The tokens that the engine has emitted for each sequence."""
        self.prefixes = prefixes or [[]] * len(p.key)
        self.outputs: list[list[int]] = [[] for _ in p.key]
        self.sampler.begin(p)
        waiting, running = list(range(len(p.key))), list[int]()
        while waiting or running:
            while waiting and len(running) < slots:
                running.append(waiting.pop(0))
            if self.random is not None:
                self.random.shuffle(running)
            if self.garbage:
                self.step(running, garbage=[n for n in running if not self.outputs[n]])
            if self.twice:
                self.step(running)
            for n, token in zip(running, self.step(running), strict=True):
                self.outputs[n].append(token)
            running = [n for n in running if not self.ended(n)]
        return self.outputs

    def ended(self, n: int) -> bool:
        return (
            self.outputs[n][-1] == STOP
            or len(self.prefixes[n]) + len(self.outputs[n]) >= MAX_TOKENS
        )

    def step(self, running: list[int], garbage: Sequence[int] = ()) -> list[int]:
        policy = self.sampler.config.policy
        logits = torch.stack(
            [logits_of(policy, n, [*self.prefixes[n], *self.outputs[n]]) for n in running]
        )
        for n in garbage:
            logits[running.index(n)] = torch.randn(PADDED) * 5
        emitted = np.array([len(self.outputs[n]) for n in running])
        previous = np.array([(self.outputs[n] or [-1])[-1] for n in running])
        return [
            int(t)
            for t in self.sampler.step(logits, np.array(running), emitted, previous).argmax(-1)
        ]

    def trace(self) -> pa.RecordBatch:
        assert self.sampler.trace
        return self.sampler.trace.collect(np.arange(len(self.outputs)))


@pytest.fixture(autouse=True, params=["cpu", "gpu", "gpu without Triton"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the engines have their logits; `CrossSampler` is one that looks for them there."""
    where: str = request.param
    if where != "cpu":
        monkeypatch.setitem(globals(), "CrossSampler", pretended_gpu.GpuSampler)
    if where == "gpu":
        monkeypatch.setattr(on_device, "load_passes", pretended_gpu.load_passes)
    if where == "gpu without Triton":
        monkeypatch.setattr(on_device, "load_passes", lambda: torch_passes)
    return where


@pytest.fixture
def links() -> Iterator[Links]:
    listener = Listener("shm", "", 10.0)
    pair = listener.accept(), connect(listener.address, 10.0)
    yield pair
    for link in pair:
        link.close()


def engines(links: Links, **options: Any) -> list[Engine]:
    made = []
    for policy, link in zip(("base", "rl"), links, strict=True):
        sampler = CrossSampler(config(policy))
        sampler.link = link
        made.append(Engine(sampler, **options))
    return made


def both(*work: Callable[[], Any]) -> list[Any]:
    """Do two things at the same time; errors come back as results."""
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(one) for one in work]
        return [future.exception() or future.result() for future in futures]


def run_pair(
    links: Links, p: Phase, slots: int = 5, **options: Any
) -> tuple[list[list[int]], list[Engine]]:
    """Both engines' common tokens, and the engines."""
    pair = engines(links, **options)
    here, there = both(*(lambda e=e: e.run(p, slots=slots) for e in pair))
    if isinstance(here, BaseException):
        raise here
    assert here == there
    return here, pair


@pytest.mark.parametrize("budget", [1, 2, 5, MAX_INTERVENTIONS])
def test_both_sides_emit_what_the_oracle_says(links: Links, budget: int) -> None:
    p = phase(12, budget)
    emitted, _ = run_pair(links, p)
    for n, tokens in enumerate(emitted):
        expected = oracle(n, p)
        assert tokens == expected.tokens + [STOP] * expected.handed_back
    if budget == 1:
        assert any(oracle(n, p).handed_back for n in range(12))


@pytest.mark.parametrize("slots", [1, 3, 12])
def test_the_number_of_slots_changes_nothing(links: Links, slots: int) -> None:
    p = phase(12, 3)
    emitted, _ = run_pair(links, p, slots=slots)
    assert [tokens[: len(oracle(n, p).tokens)] for n, tokens in enumerate(emitted)] == [
        oracle(n, p).tokens for n in range(12)
    ]


@pytest.mark.parametrize(
    "options", [{"order": 1}, {"twice": True}, {"garbage": True}], ids=lambda o: next(iter(o))
)
def test_rows_reordered_stepped_twice_or_first_with_garbage_change_nothing(
    links: Links, options: Any
) -> None:
    p = phase(12, 3)
    emitted, pair = run_pair(links, p)
    other, other_pair = run_pair(links, p, **options)
    assert other == emitted
    for engine, other_engine in zip(pair, other_pair, strict=True):
        trace, other_trace = engine.trace(), other_engine.trace()
        assert trace.schema == other_trace.schema
        for name in trace.schema.names:
            if pa.types.is_floating(trace.schema.field(name).type):
                a, b = (t.column(name).to_numpy(zero_copy_only=False) for t in (trace, other_trace))
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
            else:
                assert trace.column(name).equals(other_trace.column(name))


def test_the_trace_has_a_row_for_every_token_but_a_hand_back_s(links: Links) -> None:
    p = phase(12, 2)
    emitted, pair = run_pair(links, p)
    for trace in (engine.trace() for engine in pair):
        rows = list(
            zip(
                *(trace.column(name).to_pylist() for name in ("sequence", "position", "token")),
                strict=True,
            )
        )
        expected = [oracle(n, p).tokens for n in range(12)]
        assert rows == [
            (n, position, token) for n in range(12) for position, token in enumerate(expected[n])
        ]
        assert len(rows) == sum(map(len, emitted)) - sum(
            oracle(n, p).handed_back for n in range(12)
        )


def test_each_side_records_what_it_says_of_the_token_and_of_the_other_s_best(links: Links) -> None:
    p = phase(6)
    emitted, pair = run_pair(links, p)
    for mine, other in (pair, pair[::-1]):
        policy = mine.sampler.config.policy
        for row, other_row in zip(mine.trace().to_pylist(), other.trace().to_pylist(), strict=True):
            prefix = emitted[row["sequence"]][: row["position"]]
            log_p = torch.log_softmax(
                logits_of(policy, row["sequence"], prefix)[:VOCAB].double(), -1
            )
            assert row["top1"] == log_p.argmax()
            for name, token in (("", row["token"]), ("_of_other_top1", other_row["top1"])):
                assert row[f"logp{name}"] == pytest.approx(float(log_p[token]), rel=1e-4, abs=1e-4)
                assert row[f"rank{name}"] == int((log_p > log_p[token]).sum()) + 1
            assert row["entropy"] == pytest.approx(float(-(log_p.exp() * log_p).sum()), rel=1e-4)


@pytest.mark.parametrize("budget", [1, 2, 5])
def test_a_budget_is_spent_exactly(links: Links, budget: int) -> None:
    p = phase(16, budget)
    _, pair = run_pair(links, p)
    trace = pair[0].trace()
    sequence, intervened = (
        trace.column(name).to_numpy(zero_copy_only=False) for name in ("sequence", "intervened")
    )
    spent = np.bincount(sequence, intervened, 16).astype(int).tolist()
    assert max(spent) == budget
    for n in range(16):
        made = oracle(n, p)
        assert spent[n] == sum(made.intervened)
        assert made.handed_back <= (spent[n] == budget)
        if made.handed_back:
            assert made.intervened[-1]  # at once, not a token later


def test_a_spent_sequence_is_handed_back_without_asking_the_twin(links: Links) -> None:
    sampler = CrossSampler(config("base"))
    sampler.link = links[0]
    sampler.begin(phase(2, 0))
    forced = sampler.step(
        torch.randn(2, PADDED), np.array([0, 1]), np.array([0, 0]), np.array([-1, -1])
    )
    assert forced.argmax(-1).tolist() == [STOP, STOP]
    assert sampler.take_progress().num_tokens == 0


def test_padding_of_the_vocabulary_is_never_sampled(links: Links) -> None:
    emitted, pair = run_pair(links, phase(12))
    assert max(map(max, emitted)) < VOCAB
    for trace in (engine.trace() for engine in pair):
        listed = [
            token for tokens in trace.column("top_k").to_pylist() if tokens for token in tokens
        ]
        assert listed
        assert max(listed) < VOCAB
        assert max(trace.column("top1").to_pylist()) < VOCAB


@pytest.mark.parametrize("policy", ["base", "rl"])
def test_alone_an_engine_samples_its_own_policy(policy: str) -> None:
    p = phase(8, paired=False)
    engine = Engine(CrossSampler(config(policy)))
    assert engine.run(p) == [plain(n, p, policy) for n in range(8)]
    trace = engine.trace()
    assert not any(trace.column("intervened").to_pylist())
    assert np.isnan(trace.column("js").to_numpy()).all()


def test_where_nothing_differs_a_continuation_is_what_the_pair_would_have_done(
    links: Links,
) -> None:
    whole, _ = run_pair(links, replace(phase(8), rule=Rule(threshold=1.0)))  # js never exceeds ln 2
    for policy, first in (("base", 0), ("rl", 1)):
        prefixes = [tokens[: len(tokens) // 2] for tokens in whole]
        engine = Engine(CrossSampler(config(policy)))
        tails = engine.run(
            phase(8, paired=False, offset=[len(prefix) for prefix in prefixes]), prefixes
        )
        for n in range(first, 8, 2):
            assert prefixes[n] + tails[n] == whole[n]


def test_a_handed_back_sequence_continues_with_the_primary_s_own_noise(links: Links) -> None:
    p = phase(12, 2)
    emitted, _ = run_pair(links, p)
    prefixes = [
        emitted[n][: len(oracle(n, p).tokens)] for n in range(12)
    ]  # a hand-back's stop token left out
    back = [n for n in range(12) if oracle(n, p).handed_back]
    assert back
    engine = Engine(CrossSampler(config("base")))
    alone = replace(p, paired=False, offset=np.array([len(prefix) for prefix in prefixes]))
    tails = engine.run(alone, prefixes)
    for n in back:
        assert prefixes[n] + tails[n] == plain(n, p, "base", prefixes[n])
    trace = engine.trace()
    assert trace.column("position").to_pylist() == [
        position
        for n in range(12)
        for position in range(len(prefixes[n]), len(prefixes[n]) + len(tails[n]))
    ]


def stepper(links: Links) -> tuple[CrossSampler, CrossSampler, Callable[..., list[Any]]]:
    """Two samplers at the start of a phase of two sequences, and a function that steps both with
    the same rows.
    """
    pair = [engine.sampler for engine in engines(links)]
    for sampler in pair:
        sampler.begin(phase(2))

    def step(sequence: list[int], emitted: list[int], previous: list[int]) -> list[Any]:
        def one(sampler: CrossSampler) -> torch.Tensor:
            logits = torch.stack(
                [
                    logits_of(sampler.config.policy, n, [abs(e)])
                    for n, e in zip(sequence, emitted, strict=True)
                ]
            )
            return sampler.step(logits, np.array(sequence), np.array(emitted), np.array(previous))

        return both(*(lambda s=s: one(s) for s in pair))

    return pair[0], pair[1], step


def test_rows_whose_prompt_is_not_complete_are_left_alone(links: Links) -> None:
    base, _, step = stepper(links)
    step([0, 1], [0, -7], [-1, -1])
    assert base.take_progress().num_tokens == 1
    for missing in (3, 1):
        left, _ = step([1], [-missing], [-1])
        assert torch.equal(left[0], logits_of("base", 1, [missing]))
    assert base.take_progress().num_tokens == 0


def test_positions_that_an_engine_computes_again_after_a_preemption_are_left_alone(
    links: Links,
) -> None:
    base, _, step = stepper(links)
    tokens: list[int] = []
    for position in range(4):
        forced, _ = step([0], [position], tokens[-1:] or [-1])
        tokens.append(int(forced[0].argmax()))
    base.take_progress()
    for stale in (1, 2):
        left, _ = step([0], [stale], [tokens[stale - 1]])
        assert torch.equal(left[0], logits_of("base", 0, [stale]))
    assert base.take_progress().num_tokens == 0
    again, _ = step([0], [3], [tokens[2]])
    assert int(again[0].argmax()) == tokens[3]
    forced, _ = step([0], [4], [tokens[3]])
    assert torch.isinf(forced[0]).any()


@pytest.mark.parametrize(
    "what", ["another token", "a position left out", "a token before the first decision"]
)
def test_an_engine_that_did_something_else_is_an_error(links: Links, what: str) -> None:
    _, _, step = stepper(links)
    token = int(step([0], [0], [-1])[0][0].argmax())
    sequence, emitted, previous, message = {
        "another token": (
            0,
            1,
            token + 1,
            f"with token {token + 1}; decided was token {token} at position 0",
        ),
        "a position left out": (0, 2, token, "went to position 2 of sequence 0"),
        "a token before the first decision": (
            1,
            1,
            5,
            "went to position 1 of sequence 1 with token 5",
        ),
    }[what]
    for error in step([sequence], [emitted], [previous]):
        with pytest.raises(LockstepError, match=message):
            raise error


def test_an_engine_that_did_something_else_alone_is_an_error() -> None:
    sampler = CrossSampler(config("rl"))
    sampler.begin(phase(1, paired=False))
    token = int(
        sampler.step(torch.randn(1, PADDED), np.array([0]), np.array([0]), np.array([-1])).argmax()
    )
    with pytest.raises(LockstepError, match="decided was"):
        sampler.step(torch.randn(1, PADDED), np.array([0]), np.array([1]), np.array([token + 1]))


def test_a_twin_with_other_rows_is_an_error_on_both_sides(links: Links) -> None:
    base, rl, _ = stepper(links)

    def step(sampler: CrossSampler, sequence: list[int]) -> torch.Tensor:
        num = len(sequence)
        return sampler.step(
            torch.randn(num, PADDED), np.array(sequence), np.zeros(num, int), np.full(num, -1)
        )

    for error in both(lambda: step(base, [0, 1]), lambda: step(rl, [1, 0])):
        assert isinstance(error, LockstepError)


def test_a_paired_phase_before_the_engines_have_met_is_an_error() -> None:
    with pytest.raises(LockstepError, match="before the engines had met"):
        CrossSampler(config("base")).begin(phase(1))


def test_a_new_phase_forgets_the_last(links: Links) -> None:
    p = phase(6, 2)
    pair = engines(links)
    first, second = (both(*(lambda e=e: e.run(p) for e in pair)) for _ in range(2))
    assert first == second
    assert pair[0].trace().num_rows == sum(len(oracle(n, p).tokens) for n in range(6))


def test_positions_are_counted_as_they_are_decided(links: Links) -> None:
    p = phase(6, 2)
    _, pair = run_pair(links, p)
    assert [engine.sampler.take_progress().num_tokens for engine in pair] == [
        engine.trace().num_rows for engine in pair
    ]
    assert pair[0].sampler.take_progress().num_tokens == 0


def test_a_rank_that_keeps_no_trace_decides_the_same(links: Links) -> None:
    p = phase(6)
    pair = engines(links)
    silent = CrossSampler(config("rl"), keeps_trace=False)
    silent.link = links[1]
    here, there = both(lambda: pair[0].run(p), lambda: Engine(silent).run(p))
    assert here == there
    assert silent.trace is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_gives_no_distribution_is_an_error(bad: float) -> None:
    sampler = CrossSampler(config("base"))
    sampler.begin(phase(1, paired=False))
    logits = torch.zeros(1, PADDED)
    logits[0, 3] = bad
    with pytest.raises(FloatingPointError):
        sampler.step(logits, np.array([0]), np.array([0]), np.array([-1]))
