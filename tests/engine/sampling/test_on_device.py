"""Full distributions on a pretended GPU: they say what those on the CPU say, and ask for no more
kernels, copies and waits than a step needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.arrays import Ints
from engine.errors import LockstepError
from engine.sampling import on_device
from engine.sampling.distribution import Nuclei, Sampling
from engine.sampling.exchange import Rows
from engine.sampling.full import FullDistributions, Measured, Wanted
from engine.sampling.intervention import Decisions
from engine.sampling.link import Link, Meanwhile
from engine.sampling.noise import stream_key
from engine.sampling.on_device import OnDevice
from engine.sampling.on_host import OnHost
from engine.sampling.rule import CriterionName, Rule
from engine.sampling.sampler import CrossSampler, Phase, SamplerConfig
from engine.sampling.trace import Trace
from engine.sampling.transfer import Transfer
from tests.support import pretended_gpu
from tests.support.pretended_gpu import COUNTS, GpuSampler, on_gpu

VOCAB, PADDED = 500, 512


@pytest.fixture(scope="module", autouse=True)
def passes_are_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_device, "load_passes", pretended_gpu.load_passes)
        yield


def batch_of(kinds: str, seed: int) -> torch.Tensor:
    """A row of logits for each letter: *s*harp, *m*iddling, *f*lat, *t*ies or *M*asked."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((len(kinds), PADDED))
    for row, kind in zip(rows, kinds, strict=True):
        row *= {"s": 4, "m": 1.5, "f": 0.1, "t": 1, "M": 4}[kind]
        if kind == "t":
            row[:] = rng.integers(0, 6, PADDED)
        if kind == "M":
            row[rng.random(PADDED) < 0.99] = -np.inf
            row[3] = 0
    rows[:, VOCAB:] = 60
    return torch.from_numpy(rows).float()


def on_both(
    logits: torch.Tensor, sampling: Sampling, rows: Ints
) -> tuple[FullDistributions, FullDistributions]:
    """The same distributions on the pretended GPU and on the CPU, where `rows` are chosen."""
    fed = torch.arange(len(logits), dtype=torch.int32) + 5
    device = OnDevice(on_gpu(logits.clone()), on_gpu(fed), VOCAB, sampling, Transfer())
    host = OnHost(logits.clone(), fed, VOCAB, sampling)
    for full in (device, host):
        assert full.previous().tolist() == fed.tolist()
        full.choose(rows)
    return device, host


def assert_same(found: Nuclei, expected: Nuclei) -> None:
    assert found.size.tolist() == expected.size.tolist()
    assert found.token.tolist() == expected.token.tolist()
    np.testing.assert_allclose(found.p, expected.p, rtol=1e-4)


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 1.5]),
    top_p=st.sampled_from([0.3, 0.7, 0.95, 1.0]),
    top_k=st.sampled_from([0, 0, 1, 3, 20, 499, 500]),
)


@settings(max_examples=60, deadline=None)
@given(st.text("smftM", min_size=1, max_size=6), st.integers(0, 999), samplings, st.data())
def test_nuclei_are_those_of_the_host(
    kinds: str, seed: int, sampling: Sampling, data: st.DataObject
) -> None:
    chosen = data.draw(st.sets(st.integers(0, len(kinds) - 1), min_size=1))
    device, host = on_both(batch_of(kinds, seed), sampling, np.array(sorted(chosen)))
    assert_same(device.nuclei(), host.nuclei())


@settings(max_examples=30, deadline=None)
@given(st.text("smftM", min_size=1, max_size=6), st.integers(0, 999))
@example("sMf", 1)
@example("MMf", 657)
def test_scalars_lists_and_forced_tokens_are_those_of_the_host(kinds: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits, num = batch_of(kinds, seed), len(kinds)
    rows = np.sort(rng.permutation(num)[: rng.integers(1, num + 1)])
    others = np.setdiff1d(np.arange(num), rows)
    device, host = on_both(logits, Sampling(1.0, 0.9), rows)
    np.testing.assert_allclose(device.entropy(), host.entropy(), rtol=1e-4, atol=1e-5)
    row, token = rng.integers(0, len(rows), 9), rng.integers(0, VOCAB, 9)
    expected = host.log_p(row, token)
    np.testing.assert_allclose(device.log_p(row, token), expected, rtol=1e-5, atol=1e-5)
    some = np.arange(0, len(rows), 2)
    top, expected_top = device.top(some, 7), host.top(some, 7)
    for index, mine, theirs in zip(some, top, expected_top, strict=True):
        values = logits[rows[index]]
        assert values[mine].tolist() == values[theirs].tolist()

    forced = rng.integers(0, VOCAB, num)
    js = np.zeros(len(rows))
    js[some] = 0.6
    wanted = Wanted(rng.integers(0, VOCAB, len(rows)), js, 0.5, 4)
    measured = device.force(np.concatenate((rows, others)), forced, wanted)
    log_p = host.force(np.concatenate((rows, others)), forced, wanted)
    assert isinstance(measured, Measured) and isinstance(log_p, torch.Tensor)
    traces = []
    for full in (measured, log_p):
        trace = Trace(0.5, 4)
        never = np.zeros(len(rows), np.bool_)
        decisions = Decisions(forced[: len(rows)], forced[: len(rows)], never, js)
        at = Rows(np.arange(len(rows)), np.zeros_like(rows), np.full_like(rows, -1))
        trace.append(at, decisions, host.nuclei(), wanted.other_top1, full)
        traces.append(trace.collect(np.arange(len(rows))))
    values = logits[torch.from_numpy(rows), :VOCAB]
    for name, asked in (("rank", forced[: len(rows)]), ("rank_of_other_top1", wanted.other_top1)):
        x = values.gather(1, torch.from_numpy(asked)[:, None])
        exact = 1 + (values > x).sum(1).numpy()
        assert traces[0][name].to_pylist() == exact.tolist()
        # The host counts log-probabilities, which are rounded once more: neighbours become ties.
        num_close = ((values - x).abs() < 1e-4).sum(1).numpy()
        assert (np.abs(traces[1][name].to_numpy() - exact) <= num_close).all()
    for name in ("entropy", "logp", "logp_of_other_top1"):
        a, b = (trace[name].to_numpy() for trace in traces)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for mine, theirs, row_of in zip(
        *(trace["top_k"].to_pylist() for trace in traces), rows, strict=True
    ):
        assert (mine is None) == (theirs is None)
        assert mine is None or logits[row_of][mine].tolist() == logits[row_of][theirs].tolist()


@settings(max_examples=30, deadline=None)
@given(st.text("smfM", min_size=1, max_size=6), st.integers(0, 999), st.sampled_from([7, 600]))
def test_a_reading_is_the_host_s(kinds: str, seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(kinds))[: rng.integers(1, len(kinds) + 1)])
    logits, token = batch_of(kinds, seed), rng.integers(0, VOCAB, len(rows))
    device, host = (
        full.reading(token, count) for full in on_both(logits, Sampling(1.0, 0.9), rows)
    )
    np.testing.assert_allclose(device.numbers[:, :2], host.numbers[:, :2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(device.top_log_p, host.top_log_p, rtol=1e-4, atol=1e-5)
    values = logits[torch.from_numpy(rows), :VOCAB]
    x = values.gather(1, torch.from_numpy(token)[:, None])
    assert device.numbers[:, 2].tolist() == (1 + (values > x).sum(1)).tolist()
    assert device.top.shape == host.top.shape == (len(rows), min(count, VOCAB))
    best = values.topk(min(count, VOCAB), -1).values
    assert torch.equal(values.gather(1, torch.from_numpy(device.top).long()), best)
    # The host orders log-probabilities, which are rounded once more.
    listed = values.gather(1, torch.from_numpy(host.top).long())
    np.testing.assert_allclose(listed.numpy(), best.numpy(), rtol=1e-4, atol=1e-4)


def test_forced_tokens_are_written_and_nothing_else() -> None:
    logits = batch_of("smf", 0)
    forced = logits.clone()
    full = OnDevice(on_gpu(forced), np.zeros(3, np.int64), VOCAB, Sampling(1.0, 0.9), Transfer())
    full.previous()
    full.choose(np.array([2]))
    assert full.force(np.array([2, 0]), np.array([7, 9]), None) is None
    logits[2, 7] = logits[0, 9] = torch.inf
    assert torch.equal(forced, logits)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_a_bad_row_is_an_error_that_names_it_if_it_is_chosen(
    bad: float, temperature: float
) -> None:
    logits = batch_of("sss", 0)
    logits[1, 4] = bad
    for rows in (np.array([0, 2]), np.array([0, 1, 2])):
        full, _ = on_both(logits, Sampling(temperature, 0.9), rows)
        if 1 in rows:
            with pytest.raises(FloatingPointError, match=r"row 1$"):
                full.nuclei()
        else:
            assert len(full.nuclei().size) == 2


@pytest.mark.parametrize(
    ("sampling", "kind", "is_settled"),
    [
        (Sampling(1.0, 0.9), "s", True),
        (Sampling(1.0, 0.9), "f", False),
        (Sampling(1.0, 1.0), "s", False),
        (Sampling(0.6, 0.95, 20), "s", True),
        (Sampling(1.0, 1.0, 2), "s", True),
        (Sampling(1.0, 0.95, 20), "f", False),
        (Sampling(0.0, 0.9), "f", True),
    ],
)
def test_a_row_that_its_summary_settles_is_not_looked_at_again(
    sampling: Sampling, kind: str, is_settled: bool
) -> None:
    logits = batch_of(kind, 3)
    if kind == "s":
        logits[0, [5, 6, 7]] = torch.tensor([25.0, 24.5, 22.0])
    full, host = on_both(logits, sampling, np.array([0]))
    pretended_gpu.reset()
    assert_same(full.nuclei(), host.nuclei())
    assert (COUNTS.to_host + COUNTS.waits == 0) == is_settled


class Echo:
    """A link to a twin that says what this side says."""

    def __init__(self) -> None:
        self.num_swaps = 0

    def swap(self, message: bytes, meanwhile: Meanwhile | None = None) -> bytes:
        self.num_swaps += 1
        return message


def phase_of(num: int, criterion: CriterionName = "js", budget: int = 9) -> Phase:
    return Phase(
        paired=True,
        rule=Rule(criterion=criterion, threshold=0.1),
        key=np.array([stream_key(0, "p", n) for n in range(num)], np.uint64),
        forward=np.arange(num) % 2 == 0,
        budget=np.full(num, budget),
        offset=np.zeros(num, np.int64),
        stop_token=0,
    )


def stepped(sampler: CrossSampler, phase: Phase, num_steps: int = 3) -> None:
    """Step a batch of sharp rows; afterwards `COUNTS` is of the last step alone."""
    sampler.begin(phase)
    num = len(phase.key)
    previous = np.full(num, -1)
    for step in range(num_steps):
        logits = batch_of("s" * num, step)
        logits[np.arange(num), 9 + np.arange(num)] = 20.0
        pretended_gpu.reset()
        forced = sampler.step(logits, np.arange(num), np.full(num, step), previous)
        previous = forced.argmax(-1).numpy()


def sampler_of(record_threshold: float = 0.5) -> CrossSampler:
    config = SamplerConfig("base", VOCAB, Sampling(1.0, 0.9), record_threshold, 4)
    sampler = GpuSampler(config)
    sampler.link = cast(Link, Echo())
    return sampler


def test_a_step_is_two_kernels_one_copy_each_way_and_one_wait() -> None:
    stepped(sampler_of(), phase_of(8))
    assert (COUNTS.own_kernels, COUNTS.kernels) == (2, 2)
    assert (COUNTS.to_host, COUNTS.to_device, COUNTS.waits) == (1, 1, 0)
    assert COUNTS.largest < 8 * VOCAB and COUNTS.largest_to_host < 8 * VOCAB


def test_alone_a_step_is_the_same() -> None:
    stepped(sampler_of(), replace(phase_of(8), paired=False))
    assert (COUNTS.kernels, COUNTS.to_host, COUNTS.to_device, COUNTS.waits) == (2, 1, 1, 0)


def test_lists_are_two_operations_more_on_the_rows_that_have_one() -> None:
    stepped(sampler_of(record_threshold=0.0), phase_of(8))
    assert (COUNTS.own_kernels, COUNTS.kernels) == (2, 4)
    assert (COUNTS.to_host, COUNTS.to_device, COUNTS.waits) == (1, 1, 0)


@pytest.mark.parametrize("criterion", ["entropy-base", "entropy-rl"])
def test_criteria_of_the_entropy_ask_the_device_for_nothing_more(
    criterion: CriterionName,
) -> None:
    sampler = sampler_of()
    stepped(sampler, phase_of(8, criterion))
    assert cast(Echo, sampler.link).num_swaps == 6
    assert (COUNTS.kernels, COUNTS.to_host, COUNTS.to_device, COUNTS.waits) == (2, 1, 1, 0)


@pytest.mark.parametrize("criterion", ["dlogp", "kl", "reverse-kl"])
def test_criteria_of_log_probabilities_gather_them_in_one_operation(
    criterion: CriterionName,
) -> None:
    stepped(sampler_of(), phase_of(8, criterion))
    assert (COUNTS.kernels, COUNTS.to_host, COUNTS.to_device, COUNTS.waits) == (3, 2, 2, 0)


def test_rows_that_are_handed_back_are_forced_with_the_others() -> None:
    phase = phase_of(4)
    phase.budget[1] = 0
    sampler = sampler_of()
    sampler.begin(phase)
    pretended_gpu.reset()
    logits = batch_of("ssss", 0)
    forced = sampler.step(logits, np.arange(4), np.zeros(4, np.int64), np.full(4, -1))
    assert torch.isposinf(forced).sum(-1).tolist() == [1] * 4
    assert int(forced[1].argmax()) == 0
    assert (COUNTS.own_kernels, COUNTS.to_host, COUNTS.to_device) == (2, 1, 1)


def test_a_batch_of_prompts_that_are_not_complete_asks_the_device_for_nothing() -> None:
    sampler = sampler_of()
    sampler.begin(phase_of(2))
    pretended_gpu.reset()
    sampler.step(batch_of("ss", 0), np.arange(2), np.full(2, -3), np.full(2, -1))
    assert (COUNTS.kernels, COUNTS.to_host, COUNTS.to_device) == (0, 0, 0)


def test_a_token_that_the_device_was_fed_is_checked() -> None:
    sampler = sampler_of()
    sampler.begin(phase_of(1))
    token = int(sampler.step(batch_of("s", 0), *(np.array([n]) for n in (0, 0, -1))).argmax())
    with pytest.raises(LockstepError, match=f"with token {token + 1}; decided was token {token}"):
        sampler.step(batch_of("s", 1), *(np.array([n]) for n in (0, 1, token + 1)))


def test_rows_go_on_after_others_were_collected_before_the_first_list() -> None:
    """The first list comes after a collection that had none."""
    sampler = sampler_of()
    stepped(sampler, phase_of(3), 2)
    trace = sampler.trace
    assert trace
    assert trace.collect(np.array([0])).column("top_k").null_count == 2
    logits = batch_of("ss", 7)
    full = OnDevice(on_gpu(logits), np.zeros(2, np.int64), VOCAB, Sampling(1.0, 0.9), Transfer())
    full.previous()
    full.choose(np.arange(2))
    token, mine = np.array([3, 4]), full.nuclei()
    decisions = Decisions(token, token, np.zeros(2, np.bool_), np.array([0.6, 0.1]))
    measured = full.force(np.arange(2), token, trace.wanted(decisions, token))
    assert measured is not None
    trace.append(Rows(np.array([1, 2]), np.array([2, 2]), token), decisions, mine, token, measured)
    out = trace.collect(np.array([1, 2])).to_pylist()
    assert [(row["sequence"], row["position"]) for row in out] == [
        (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2),
    ]  # fmt: skip
    assert [row["top_k"] is None for row in out] == [True, True, False, True, True, True]


def test_what_was_measured_comes_to_the_host_in_two_copies() -> None:
    sampler = sampler_of(record_threshold=0.0)
    stepped(sampler, phase_of(8), 5)
    pretended_gpu.reset()
    assert sampler.trace
    assert sampler.trace.collect(np.arange(3)).num_rows == 15
    assert (COUNTS.to_host, COUNTS.to_device) == (2, 0)
    assert sampler.trace.collect(np.arange(8)).num_rows == 25
    assert COUNTS.to_host == 2
