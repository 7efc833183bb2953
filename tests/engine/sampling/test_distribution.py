"""Nuclei, divergences and scalars against slow, obvious float64 oracles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.sampling import distribution, passes
from engine.sampling.distribution import (
    Nuclei,
    Sampling,
    extrapolate,
    js_divergence,
    log_probabilities,
    measure,
    nuclei,
    stack,
)
from engine.sampling.passes import find_at_least

Floats = np.ndarray[Any, np.dtype[np.float64]]
KINDS = ("normal", "flat", "peaked", "ties", "masked", "wide")
# A share of the mass that float32 normalisation may put on either side of the cut.
SLACK = 1e-5


def logits_of(kind: str, size: int, seed: int) -> Floats:
    """One row of logits that float32 holds exactly; none of two different ones are nearly equal."""
    rng = np.random.default_rng(seed)
    row: Floats = 3 * rng.standard_normal(size)
    match kind:
        case "flat":
            row[:] = rng.integers(-30, 30)
        case "peaked":
            row[rng.integers(size)] = 20
        case "ties":
            row[:] = rng.integers(0, 3, size)
        case "masked":
            row[rng.random(size) < 0.5] = -np.inf
            row[rng.integers(size)] = 1
        case "wide":
            row *= 10
    return np.asarray(np.round(row * 8) / 8)


batches = st.tuples(
    st.sampled_from([2, 3, 17, 300, 2000]), st.integers(0, 999), st.lists(st.sampled_from(KINDS))
).map(
    lambda t: np.stack(
        [logits_of(kind, t[0], t[1] + n) for n, kind in enumerate(("normal", *t[2][:6]))]
    )
)
samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.25, 0.6, 1.0, 1.7]),
    top_p=st.sampled_from([1e-6, 0.1, 0.5, 0.7, 0.95, 0.96, 0.999, 1.0]),
    top_k=st.sampled_from([0, 0, 1, 2, 5, 50, 299, 5000]),
)


def of(logits: Floats, sampling: Sampling) -> Nuclei:
    return nuclei(
        log_probabilities(torch.tensor(np.atleast_2d(logits), dtype=torch.float32)), sampling
    )


def split(found: Nuclei) -> list[dict[int, float]]:
    """Each row's {token: p}, in the nucleus's order."""
    edges = np.cumsum(found.size)[:-1]
    parts = zip(np.split(found.token, edges), np.split(found.p, edges), strict=True)
    return [dict(zip(token.tolist(), p.tolist(), strict=True)) for token, p in parts]


def ranked(logits: Floats, sampling: Sampling) -> tuple[list[int], Floats]:
    """The tokens that top_k leaves, by falling logit and then rising id, and their shares of the
    mass.
    """
    order = sorted(
        np.flatnonzero(logits > -np.inf).tolist(), key=lambda token: (-logits[token], token)
    )
    if sampling.top_k:
        kth = logits[order[min(sampling.top_k, len(order)) - 1]]
        order = [token for token in order if logits[token] >= kth]
    weight = np.exp((logits[order] - logits[order[0]]) / sampling.temperature)
    return order, weight / weight.sum()


def dense(nucleus: dict[int, float], size: int) -> Floats:
    return np.array([nucleus.get(token, 0.0) for token in range(size)])


def js_of(a: Floats, b: Floats) -> float:
    middle = (a + b) / 2
    return float(sum((x[x > 0] * np.log(x[x > 0] / middle[x > 0])).sum() / 2 for x in (a, b)))


@settings(max_examples=120, deadline=None)
@given(batches, samplings)
def test_the_nucleus_is_the_shortest_prefix_that_reaches_top_p(
    batch: Floats, sampling: Sampling
) -> None:
    for logits, nucleus in zip(batch, split(of(batch, sampling)), strict=True):
        order, share = ranked(logits, sampling)
        assert list(nucleus) == order[: len(nucleus)]
        mass = np.cumsum(share)
        assert mass[len(nucleus) - 1] >= sampling.top_p - SLACK
        assert len(nucleus) == 1 or mass[len(nucleus) - 2] < sampling.top_p + SLACK
        expected = share[: len(nucleus)] / mass[len(nucleus) - 1]
        np.testing.assert_allclose(list(nucleus.values()), expected, rtol=1e-4, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(batches, samplings)
def test_every_row_sums_to_one_and_falls(batch: Floats, sampling: Sampling) -> None:
    found = of(batch, sampling)
    assert found.size.min() >= 1
    assert found.p.min() > 0
    for nucleus in split(found):
        p = np.array(list(nucleus.values()))
        assert p.sum() == pytest.approx(1, abs=1e-12)
        assert (np.diff(p) <= 0).all()


@settings(max_examples=60, deadline=None)
@given(batches, samplings)
def test_a_row_alone_has_the_nucleus_that_it_has_in_a_batch(
    batch: Floats, sampling: Sampling
) -> None:
    alone = [split(of(row, sampling))[0] for row in batch]
    for nucleus, expected in zip(split(of(batch, sampling)), alone, strict=True):
        assert list(nucleus) == list(expected)
        np.testing.assert_allclose(list(nucleus.values()), list(expected.values()), rtol=1e-12)


@pytest.mark.parametrize("num_rows", [1, 7, 64])
def test_an_exact_tie_at_the_cut_is_cut_alike_whatever_stands_before_it(num_rows: int) -> None:
    batch = np.stack(
        [logits_of("normal", 50, n) for n in range(num_rows)]
        + [np.r_[0.0, 0.0, np.full(48, -30.0)]]
    )
    assert split(of(batch, Sampling(1.0, 0.5, top_k=2)))[-1] == {0: 1.0}


@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("size", [255, 257, 5000, 50_000])
def test_a_flat_distribution_over_thousands_of_tokens_is_not_cut_short(
    top_p: float, size: int
) -> None:
    [nucleus] = split(of(np.zeros(size), Sampling(1.0, top_p)))
    assert len(nucleus) == pytest.approx(top_p * size, abs=1 + 1e-5 * size)
    assert list(nucleus) == list(range(len(nucleus)))


def test_a_heavy_tail_of_rare_tokens_is_not_cut_short() -> None:
    logits = np.r_[5.0, np.zeros(20_000)]  # the first has 0.7 % of the mass
    [nucleus] = split(of(logits, Sampling(1.0, 0.7)))
    assert len(nucleus) == pytest.approx(0.7 * (20_000 + np.exp(5)) - np.exp(5), abs=3)


def test_a_flat_row_does_not_bring_its_whole_vocabulary_to_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """300 tokens share the first half of the mass, 100,000 the rest."""
    p = torch.cat((torch.full((300,), 0.5 / 300), torch.full((100_000,), 0.5 / 100_000)))
    log_p = p.double().log().float()[None]
    taken = []

    def count(*arguments: Any) -> Any:
        flat, value = find_at_least(*arguments)
        taken.append(len(flat))
        return flat, value

    monkeypatch.setattr(distribution, "find_at_least", count)
    assert nuclei(log_p, Sampling(1.0, 0.449)).size == 270
    assert taken == [0, 300]


@settings(max_examples=40, deadline=None)
@given(batches)
def test_top_p_one_keeps_every_token_that_can_be_sampled(batch: Floats) -> None:
    for logits, nucleus in zip(batch, split(of(batch, Sampling(1.0, 1.0))), strict=True):
        assert sorted(nucleus) == np.flatnonzero(logits > -np.inf).tolist()


@pytest.mark.parametrize("top_k", [1, 2, 3, 4, 5, 6])
def test_ties_at_the_kth_token_all_stay(top_k: int) -> None:
    [nucleus] = split(of(np.array([1.0, 3.0, 2.0, 2.0, 0.0, 2.0]), Sampling(1.0, 1.0, top_k)))
    assert list(nucleus) == [1, 2, 3, 5, 0, 4][: {1: 1, 2: 4, 3: 4, 4: 4, 5: 5, 6: 6}[top_k]]


@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("top_k", [2000, 2001, 100_000])
def test_a_top_k_of_the_whole_vocabulary_is_no_top_k(top_k: int, top_p: float) -> None:
    logits = np.stack([logits_of("flat", 2000, 0), logits_of("normal", 2000, 0)])
    found, expected = of(logits, Sampling(1.0, top_p, top_k)), of(logits, Sampling(1.0, top_p))
    assert [list(nucleus) for nucleus in split(found)] == [
        list(nucleus) for nucleus in split(expected)
    ]
    np.testing.assert_allclose(found.p, expected.p, rtol=1e-6)


@pytest.mark.parametrize(
    "sampling",
    [Sampling(1.0, 1.0), Sampling(1.0, 1.0, 3), Sampling(0.7, 1.0), Sampling(1.0, 0.999)],
)
@pytest.mark.parametrize("low", [-1e3, -1e9, float(np.finfo(np.float32).min), -np.inf])
def test_tokens_that_are_too_improbable_for_a_number_are_not_in_the_nucleus(
    sampling: Sampling, low: float
) -> None:
    found = of(np.array([[0.0, low, low, low, -1.0], [low, 2.0, low, low, low]]), sampling)
    assert [list(nucleus) for nucleus in split(found)] == [[0, 4], [1]]
    assert js_divergence(found, found).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("top_k", [0, 2])
def test_a_row_with_a_bad_number_raises(bad: float, temperature: float, top_k: int) -> None:
    batch = np.zeros((3, 4))
    batch[1, 2] = bad
    with pytest.raises(FloatingPointError, match="no distribution"):
        of(batch, Sampling(temperature, 0.7, top_k))


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("top_k", [0, 2])
def test_a_row_without_any_token_raises(temperature: float, top_k: int) -> None:
    with pytest.raises(FloatingPointError, match="no distribution"):
        of(np.array([[0.0, 1.0, 2.0], [-np.inf] * 3]), Sampling(temperature, 0.7, top_k))


@pytest.mark.parametrize(
    "sampling", [Sampling(1.0, 0.7), Sampling(0.5, 1.0), Sampling(1.0, 1.0, 1)]
)
def test_the_error_names_the_row(sampling: Sampling) -> None:
    with pytest.raises(FloatingPointError, match=r"row 1$"):
        of(np.array([[0.0, 0.0], [0.0, np.nan], [0.0, 0.0]]), sampling)


@settings(max_examples=30, deadline=None)
@given(batches, st.sampled_from([0.1, 0.7, 1.0]), st.sampled_from([0, 2]))
def test_temperature_zero_takes_the_best_token_the_lowest_id_among_equals(
    b: Floats, top_p: float, k: int
) -> None:
    found = of(b, Sampling(0.0, top_p, k))
    assert split(found) == [{int(row.argmax()): 1.0} for row in b]
    assert found.top1.tolist() == found.token.tolist()


def test_the_distribution_is_left_as_it_is() -> None:
    log_p = log_probabilities(torch.randn(4, 100))
    before = log_p.clone()
    for sampling in (
        Sampling(1.0, 0.7),
        Sampling(0.5, 1.0),
        Sampling(1.0, 0.9, 3),
        Sampling(0.0, 1.0),
    ):
        nuclei(log_p, sampling)
    assert torch.equal(log_p, before)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_view_of_wider_logits_gives_the_same_nuclei(temperature: float) -> None:
    view = torch.randn(5, 130)[:, :100]
    found = [
        split(nuclei(log_probabilities(x), Sampling(temperature, 0.9)))
        for x in (view, view.clone())
    ]
    assert found[0] == found[1]


pairs = st.tuples(batches, st.integers(0, 99), st.sampled_from([0.0, 0.25, 2.0])).map(
    lambda t: (
        t[0],
        np.round((t[0] + t[2] * np.random.default_rng(t[1]).standard_normal(t[0].shape)) * 8) / 8,
    )
)


@settings(max_examples=80, deadline=None)
@given(pairs, samplings)
def test_js_is_that_of_the_dense_vectors(pair: tuple[Floats, Floats], sampling: Sampling) -> None:
    a, b = (of(logits, sampling) for logits in pair)
    size = pair[0].shape[1]
    expected = [
        js_of(dense(x, size), dense(y, size)) for x, y in zip(split(a), split(b), strict=True)
    ]
    np.testing.assert_allclose(js_divergence(a, b), expected, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(pairs, samplings)
def test_js_is_symmetric_and_between_zero_and_ln_2(
    pair: tuple[Floats, Floats], sampling: Sampling
) -> None:
    a, b = (of(logits, sampling) for logits in pair)
    js = js_divergence(a, b)
    assert ((js >= 0) & (js <= np.log(2))).all()
    np.testing.assert_allclose(js, js_divergence(b, a), atol=1e-15)


@settings(max_examples=40, deadline=None)
@given(batches, samplings)
def test_js_of_equal_nuclei_is_exactly_zero(batch: Floats, sampling: Sampling) -> None:
    found = of(batch, sampling)
    assert js_divergence(found, found).tolist() == [0.0] * len(batch)


@settings(max_examples=40, deadline=None)
@given(batches, samplings)
def test_js_of_disjoint_nuclei_is_ln_2(batch: Floats, sampling: Sampling) -> None:
    found = of(batch, sampling)
    elsewhere = Nuclei(found.size, found.token + batch.shape[1], found.p)
    np.testing.assert_allclose(js_divergence(found, elsewhere), np.log(2), rtol=1e-13)


def test_js_does_not_mix_rows_up() -> None:
    a = Nuclei(np.array([1, 2, 1]), np.array([7, 1, 2, 7]), np.array([1.0, 0.6, 0.4, 1.0]))
    b = Nuclei(np.array([1, 1, 2]), np.array([7, 9, 8, 7]), np.array([1.0, 1.0, 0.5, 0.5]))
    expected = [0.0, np.log(2), js_of(np.array([1.0, 0.0]), np.array([0.5, 0.5]))]
    np.testing.assert_allclose(js_divergence(a, b), expected, rtol=1e-14)


@settings(max_examples=60, deadline=None)
@given(batches, st.integers(0, 999))
@example(np.array([[-np.inf, 0.0, -np.inf, -np.inf]]), 0)
def test_scalars_are_those_of_the_full_distribution_in_float64(batch: Floats, seed: int) -> None:
    token = np.random.default_rng(seed).integers(0, batch.shape[1], (len(batch), 2))
    measured = measure(
        log_probabilities(torch.tensor(batch, dtype=torch.float32)), torch.tensor(token)
    ).numpy()
    for row, (logits, chosen) in enumerate(zip(batch, token, strict=True)):
        p = np.exp(logits - logits.max())
        p /= p.sum()
        entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
        log_p = logits[chosen] - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        rank = [(logits > logits[c]).sum() + 1 for c in chosen]
        assert measured[row, 0] == pytest.approx(entropy, abs=2e-4)
        np.testing.assert_allclose(measured[row, 1:3], log_p, rtol=1e-5, atol=1e-5)
        assert measured[row, 3:].tolist() == rank


def test_scalars_of_one_certain_token_are_zero_entropy_zero_logp_and_rank_one() -> None:
    measured = measure(
        log_probabilities(torch.tensor([[-torch.inf, 3.0, -torch.inf]])), torch.tensor([[1, 0]])
    )
    assert measured.tolist() == [[0.0, 0.0, -torch.inf, 1.0, 2.0]]


nucleus_rows = st.lists(
    st.dictionaries(st.integers(0, 9), st.sampled_from([0.1, 0.2, 1.0]), min_size=1),
    min_size=1,
    max_size=6,
)


def ragged(rows: list[dict[int, float]]) -> Nuclei:
    mass = [sum(row.values()) for row in rows]
    return Nuclei(
        np.array([len(row) for row in rows]),
        np.array([token for row in rows for token in row]),
        np.array([p / m for row, m in zip(rows, mass, strict=True) for p in row.values()]),
    )


def dictionaries(found: Nuclei) -> list[dict[int, float]]:
    return [
        dict(
            zip(found.token[a : a + n].tolist(), found.p[a : a + n].round(12).tolist(), strict=True)
        )
        for a, n in zip(found.start, found.size, strict=True)
    ]


@given(nucleus_rows, st.data())
def test_rows_that_are_taken_are_those_rows_in_that_order(
    rows: list[dict[int, float]], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    everything = dictionaries(ragged(rows))
    assert dictionaries(ragged(rows).take(np.array(chosen, np.int64))) == [
        everything[n] for n in chosen
    ]
    assert dictionaries(stack(ragged(rows), ragged(rows[:1]))) == [*everything, everything[0]]


@given(nucleus_rows, st.sets(st.integers(0, 9)))
def test_without_tokens_the_rest_is_renormalised_and_rows_of_nothing_else_are_left_out(
    rows: list[dict[int, float]], tokens: set[int]
) -> None:
    kept, left = ragged(rows).without(np.array(sorted(tokens), np.int64))
    rest = [{t: p for t, p in row.items() if t not in tokens} for row in rows]
    assert kept.tolist() == [n for n, row in enumerate(rest) if row]
    expected = dictionaries(ragged([row for row in rest if row])) if any(rest) else []
    for mine, theirs in zip(dictionaries(left), expected, strict=True):
        assert mine == pytest.approx(theirs)


@pytest.mark.parametrize(
    "sampling", [Sampling(1.0, 0.8), Sampling(0.6, 0.9), Sampling(1.3, 1.0, 4), Sampling(0.0, 1.0)]
)
@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_an_extrapolated_nucleus_is_that_of_the_mixture_written_out(
    sampling: Sampling, strength: float
) -> None:
    generator = torch.Generator().manual_seed(5)
    log_p, log_q = (
        torch.log_softmax(2 * torch.randn(40, 30, generator=generator), -1).double()
        for _ in range(2)
    )
    expected = nuclei(
        torch.log_softmax((1 + strength) * log_p - strength * log_q, -1).float(), sampling
    )
    token = log_p.topk(30, -1).indices
    ours = extrapolate(
        log_p.gather(1, token).numpy(),
        log_q.gather(1, token).numpy(),
        token.numpy(),
        strength,
        sampling,
    )
    assert ours.size.tolist() == expected.size.tolist()
    assert ours.token.tolist() == expected.token.tolist()
    np.testing.assert_allclose(ours.p, expected.p, atol=1e-6)


@pytest.mark.parametrize("numbers_a_block", [1, 7, 100])
def test_block_by_block_is_the_same_as_at_once(
    numbers_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn(9, 13, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    bounds, cut = values[:, :2], values[:, 3:4]
    monkeypatch.setattr(passes, "BLOCK", numbers_a_block)
    assert torch.equal(
        passes.num_greater(values, bounds), (values[:, None] > bounds[:, :, None]).sum(-1)
    )
    flat, found = passes.find_at_least(values, cut)
    assert flat.tolist() == (values >= cut).flatten().nonzero()[:, 0].tolist()
    assert found.tolist() == values[values >= cut].tolist()
    assert torch.allclose(
        passes.entropy(values), torch.special.entr(values.exp()).sum(-1), atol=1e-6
    )
