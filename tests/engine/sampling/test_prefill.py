"""PrefillMeasurer: every target is measured once, however an engine cuts the prompts into steps, on
the CPU and on a pretended GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, pairwise

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling import on_device
from engine.sampling.distribution import Sampling, log_probabilities, measure, nuclei
from engine.sampling.prefill import Computed, PrefillMeasurer, Targets
from engine.sampling.sampler import SamplerConfig
from tests.support import pretended_gpu
from tests.support.pretended_gpu import on_gpu

VOCAB, PADDED, LIST_LENGTH = 30, 32, 4
SAMPLING = Sampling(1.0, 0.9)
CONFIG = SamplerConfig("base", VOCAB, SAMPLING, record_threshold=0.1, record_top_k=3)


@pytest.fixture(scope="module", autouse=True)
def passes_are_kernels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_device, "load_passes", pretended_gpu.load_passes)
        yield


class Texts:
    """Some texts, and a model that has the logits after each of their tokens for hidden states."""

    def __init__(self, lengths: list[int], rng: np.random.Generator) -> None:
        logits = [torch.from_numpy(3 * rng.standard_normal((n, PADDED))).float() for n in lengths]
        self.lengths, self.logits = lengths, logits
        sequence = np.repeat(np.arange(len(lengths)), lengths)
        index = np.concatenate([np.arange(n) for n in lengths])
        asked = rng.random(len(index)) < 0.6
        asked[0] = True
        token = rng.integers(0, VOCAB, asked.sum())
        self.targets = Targets(sequence[asked], index[asked], token, LIST_LENGTH)

    def measured(self, measurer: PrefillMeasurer, steps: list[list[tuple[int, int, int]]]) -> None:
        """Show steps to a measurer: (text, first token, token after the last) of each request."""
        for requests in steps:
            text, first, last = np.array(requests, np.int64).T
            count = last - first
            # In the batch the requests stand in another order than they are named in.
            order = np.argsort(-text)
            row = np.empty_like(count)
            row[order] = np.cumsum(count[order]) - count[order]
            hidden = torch.cat([self.logits[text[n]][first[n] : last[n]] for n in order])
            measurer.step(Computed(text, first, count, row), hidden, lambda rows: rows.clone())


def assert_right(rows: pa.Table, texts: Texts, wanted: list[int]) -> None:
    """Rows are those of the texts `wanted`, in order, with what one pass over the logits gives."""
    targets = texts.targets
    expected = np.flatnonzero(np.isin(targets.sequence, wanted))
    assert rows["target"].to_pylist() == expected.tolist()
    if not len(expected):
        return
    where = zip(targets.sequence[expected], targets.index[expected], strict=True)
    log_p = log_probabilities(
        torch.stack([texts.logits[text][index, :VOCAB] for text, index in where])
    )
    numbers = measure(log_p, torch.from_numpy(targets.token[expected])[:, None]).numpy()
    for name, column in zip(("entropy", "logp", "rank"), numbers.T, strict=True):
        np.testing.assert_allclose(rows[name].to_numpy(), column, rtol=1e-4, atol=1e-5)
    mine = nuclei(log_p, SAMPLING)
    tokens = rows["nucleus_token"].to_pylist()
    assert [len(row) for row in tokens] == mine.size.tolist()
    assert list(chain(*tokens)) == mine.token.tolist()
    p = list(chain(*rows["nucleus_p"].to_pylist()))
    np.testing.assert_allclose(p, mine.p, rtol=1e-4)
    top = log_p.topk(LIST_LENGTH, -1)
    assert rows["top"].to_pylist() == top.indices.tolist()
    listed = np.array(rows["top_logp"].to_pylist())
    np.testing.assert_allclose(listed, top.values.numpy(), rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.integers(0, 999), st.data())
def test_prompts_in_chunks_beside_each_other_and_again_after_a_preemption(
    lengths: list[int], seed: int, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    texts, measurer = Texts(lengths, rng), PrefillMeasurer(CONFIG, 2, keeps=True)
    measurer.begin(texts.targets)
    queues = []
    for text, length in enumerate(lengths):
        cuts = data.draw(st.sets(st.integers(1, length), max_size=3))
        edges = sorted({0, length} | cuts)
        again = [0, *edges] if data.draw(st.booleans()) else edges
        queues.append([(text, a, b) for a, b in pairwise(again) if a < b])
        if again is not edges:
            queues[-1] = queues[-1][:1] + [(text, a, b) for a, b in pairwise(edges)]
    steps = []
    while any(queues):
        steps.append([queue.pop(0) for queue in queues if queue])
    texts.measured(measurer, steps)
    ended = data.draw(st.sets(st.integers(0, len(lengths) - 1)))
    rest = set(range(len(lengths))) - ended
    for wanted in (sorted(ended), sorted(rest)):
        assert_right(measurer.take(np.array(wanted, np.int64)), texts, wanted)
    assert measurer.take(np.arange(len(lengths))).num_rows == 0


def counted(calls: list[int]) -> Callable[[torch.Tensor], torch.Tensor]:
    """What computes logits, and notes of how many rows."""

    def compute_logits(rows: torch.Tensor) -> torch.Tensor:
        calls.append(len(rows))
        return rows.clone()

    return compute_logits


def test_rows_of_logits_are_bounded_whatever_a_step_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.sampling.prefill.LOGITS_AT_ONCE", 7 * VOCAB)
    texts = Texts([50, 9], np.random.default_rng(0))
    measurer = PrefillMeasurer(CONFIG, 2, keeps=True)
    measurer.begin(texts.targets)
    calls: list[int] = []
    computed = Computed(*(np.array(pair) for pair in ((0, 1), (0, 0), (50, 9), (0, 50))))
    measurer.step(computed, torch.cat(texts.logits), counted(calls))
    assert max(calls) == 7
    assert_right(measurer.take(np.array([0, 1])), texts, [0, 1])


def test_a_rank_that_keeps_nothing_takes_part_in_computing_logits() -> None:
    texts, calls = Texts([5], np.random.default_rng(0)), list[int]()
    measurer = PrefillMeasurer(CONFIG, 2, keeps=False)
    measurer.begin(texts.targets)
    computed = Computed(*(np.array([n]) for n in (0, 0, 5, 0)))
    measurer.step(computed, texts.logits[0], counted(calls))
    assert calls == [len(texts.targets.token)]
    assert measurer.take(np.array([0])).num_rows == 0


def test_steps_of_requests_without_a_text_and_phases_without_targets_are_passed_by() -> None:
    texts, calls = Texts([5], np.random.default_rng(0)), list[int]()
    measurer = PrefillMeasurer(CONFIG, 2, keeps=True)
    assert measurer.is_idle
    measurer.begin(texts.targets)
    assert not measurer.is_idle
    computed = Computed(*(np.array([n]) for n in (-1, 0, 5, 0)))
    measurer.step(computed, texts.logits[0], counted(calls))
    assert not calls


def test_a_row_that_is_no_distribution_is_an_error() -> None:
    texts = Texts([5], np.random.default_rng(0))
    texts.logits[0][:] = torch.nan
    measurer = PrefillMeasurer(CONFIG, 2, keeps=True)
    measurer.begin(texts.targets)
    with pytest.raises(FloatingPointError, match="no distribution"):
        texts.measured(measurer, [[(0, 0, 5)]])


def test_a_device_measures_what_the_host_measures() -> None:
    texts = Texts([20, 11], np.random.default_rng(0))
    measurer = PrefillMeasurer(CONFIG, 2, keeps=True)
    measurer.begin(texts.targets)
    computed = Computed(*(np.array(pair) for pair in ((0, 1), (0, 0), (20, 11), (0, 20))))
    measurer.step(computed, torch.cat(texts.logits), lambda rows: on_gpu(rows.clone()))
    assert_right(measurer.take(np.array([0, 1])), texts, [0, 1])
