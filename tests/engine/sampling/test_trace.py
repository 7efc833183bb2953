"""The trace: finished sequences leave it whole and in order, the others stay, and of duplicates the
last counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling.distribution import Sampling, log_probabilities, measure, nuclei
from engine.sampling.exchange import Rows
from engine.sampling.intervention import Decisions
from engine.sampling.trace import Trace

VOCAB, TOP_K, THRESHOLD = 30, 4, 0.25
DEVICE = ("entropy", "logp", "logp_of_other_top1", "rank", "rank_of_other_top1")
Row = dict[str, Any]
Steps = list[list[tuple[int, int]]]


def append(trace: Trace, where: Sequence[tuple[int, int]], rng: np.random.Generator) -> list[Row]:
    """Append a step with rows at `where` (sequence, position); what its rows should come out as."""
    num = len(where)
    log_p = log_probabilities(torch.from_numpy(3 * rng.standard_normal((num, VOCAB))).float())
    rows = Rows(np.array([s for s, _ in where]), np.array([p for _, p in where]), np.full(num, -1))
    mine = nuclei(log_p, Sampling(1.0, 0.9))
    js = rng.choice([0.0, THRESHOLD - 1e-3, THRESHOLD, 0.5, np.nan], num)
    flags = rng.random((2, num)) < 0.5
    token = rng.integers(0, VOCAB, num)
    primary = np.where(flags[1], (token + 1) % VOCAB, token)
    decisions = Decisions(token, primary, flags[0], js)
    other_top1 = rng.integers(0, VOCAB, num)
    measured = measure(log_p, torch.from_numpy(np.stack((token, other_top1), 1)))
    trace.append(rows, decisions, mine, other_top1, log_p)
    return [
        {
            "sequence": where[n][0],
            "position": where[n][1],
            "token": int(decisions.token[n]),
            "intervened": bool(flags[0][n]),
            "effective": bool(flags[1][n]),
            "primary_token": int(primary[n]) if flags[0][n] else None,
            "js": float(np.float32(js[n])),
            "nucleus": int(mine.size[n]),
            "top1": int(log_p[n].argmax()),
            **dict(zip(DEVICE, measured[n].tolist(), strict=True)),
            "top_k": log_p[n].argsort(descending=True)[:TOP_K].tolist()
            if js[n] >= THRESHOLD
            else None,
        }
        for n in range(num)
    ]


def rows_of(batch: pa.RecordBatch) -> list[Row]:
    return [{**row, "js": str(row["js"])} for row in batch.to_pylist()]  # NaN equals itself as text


class Model:
    """The trace as a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, int], Row] = {}

    def append(self, rows: list[Row]) -> None:
        self.rows |= {
            (row["sequence"], row["position"]): {**row, "js": str(row["js"])} for row in rows
        }

    def collect(self, finished: Sequence[int]) -> list[Row]:
        gone = sorted(key for key in self.rows if key[0] in finished)
        return [self.rows.pop(key) for key in gone]


steps = st.lists(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 5)),
        min_size=1,
        max_size=7,
        unique_by=lambda at: at[0],
    ),
    max_size=12,
)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(steps, st.sets(st.integers(0, 8))), min_size=1, max_size=4),
    st.integers(0, 99),
)
def test_whatever_comes_and_goes_it_is_a_dictionary_of_rows(
    rounds: list[tuple[Steps, set[int]]], seed: int
) -> None:
    trace, model, rng = Trace(THRESHOLD, TOP_K), Model(), np.random.default_rng(seed)
    for blocks, finished in [*rounds, ([], set(range(9)))]:
        for where in blocks:
            model.append(append(trace, where, rng))
        assert rows_of(trace.collect(np.array(sorted(finished), np.int64))) == model.collect(
            sorted(finished)
        )
    assert trace.collect(np.arange(9)).num_rows == 0


def test_rows_come_out_by_sequence_and_position_however_they_came_in() -> None:
    trace, rng = Trace(THRESHOLD, TOP_K), np.random.default_rng(0)
    for where in ([(2, 0), (0, 1)], [(0, 0), (1, 7)], [(1, 3), (2, 1)]):
        append(trace, where, rng)
    out = trace.collect(np.array([2, 0]))
    assert [(row["sequence"], row["position"]) for row in out.to_pylist()] == [
        (0, 0),
        (0, 1),
        (2, 0),
        (2, 1),
    ]
    assert trace.collect(np.array([1])).column("position").to_pylist() == [3, 7]


def test_a_position_that_was_decided_twice_has_its_last_row_only() -> None:
    trace, rng = Trace(THRESHOLD, TOP_K), np.random.default_rng(0)
    append(trace, [(0, 0)], rng)
    append(trace, [(0, 1), (1, 0)], rng)
    [last] = append(trace, [(0, 0)], rng)
    out = trace.collect(np.array([0])).to_pylist()
    assert [row["position"] for row in out] == [0, 1]
    assert (out[0]["token"], out[0]["logp"]) == (last["token"], last["logp"])


def test_top_k_lists_are_there_exactly_from_the_threshold_on() -> None:
    trace, rng = Trace(THRESHOLD, TOP_K), np.random.default_rng(1)
    expected = append(trace, [(n, 0) for n in range(40)], rng)
    out = trace.collect(np.arange(40))
    for js, tokens, row in zip(
        out["js"].to_pylist(), out["top_k"].to_pylist(), expected, strict=True
    ):
        assert (tokens is not None) == (js >= THRESHOLD)
        assert tokens == row["top_k"]


@pytest.mark.parametrize("top_k", [1, VOCAB, VOCAB + 10])
def test_lists_are_as_long_as_asked_or_as_the_vocabulary(top_k: int) -> None:
    trace = Trace(0.0, top_k)
    log_p = torch.randn(2, VOCAB)
    flags = np.zeros(2, np.bool_)
    rows = Rows(np.arange(2), np.zeros(2, np.int64), np.full(2, -1))
    decisions = Decisions(np.zeros(2, np.int64), np.zeros(2, np.int64), flags, np.zeros(2))
    trace.append(
        rows, decisions, nuclei(log_probabilities(log_p), Sampling(1.0, 0.9)), rows.sequence, log_p
    )
    lists = trace.collect(np.arange(2))["top_k"].to_pylist()
    assert lists == [row.argsort(descending=True)[:top_k].tolist() for row in log_p]


def test_types_do_not_depend_on_what_is_in_it() -> None:
    empty, full = Trace(THRESHOLD, TOP_K), Trace(THRESHOLD, TOP_K)
    append(full, [(n, 0) for n in range(20)], np.random.default_rng(0))
    assert empty.collect(np.arange(3)).schema == full.collect(np.arange(20)).schema


def test_a_number_of_ranks_and_ids_survives_exactly() -> None:
    trace, last = Trace(THRESHOLD, TOP_K), np.array([151_935])
    logits = torch.zeros(1, 151_936)
    logits[0, -2:] = torch.tensor([-1.0, -torch.inf])
    log_p = log_probabilities(logits)
    trace.append(
        Rows(np.array([2**20]), np.array([131_071]), np.array([-1])),
        Decisions(last, last, np.zeros(1, np.bool_), np.array([np.nan])),
        nuclei(log_p, Sampling(1.0, 1.0)),
        last - 1,
        log_p,
    )
    [row] = trace.collect(np.array([2**20])).to_pylist()
    assert (row["position"], row["token"], row["nucleus"]) == (131_071, 151_935, 151_935)
    assert (row["logp"], row["rank"]) == (float("-inf"), 151_936)
    assert (row["logp_of_other_top1"], row["rank_of_other_top1"]) == (float(log_p[0, -2]), 151_935)


@pytest.mark.parametrize("numbers_a_block", [1, 5 * VOCAB])
def test_it_does_not_matter_how_many_steps_are_measured_at_once(
    numbers_a_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.sampling.trace.BLOCK", numbers_a_block)
    trace, model, rng = Trace(THRESHOLD, TOP_K), Model(), np.random.default_rng(2)
    for step in range(7):
        model.append(append(trace, [(0, step), (1, step), (2, step)], rng))
        trace.catch_up()
    assert rows_of(trace.collect(np.arange(3))) == model.collect([0, 1, 2])


def test_cleared_it_is_empty() -> None:
    trace = Trace(THRESHOLD, TOP_K)
    append(trace, [(0, 0), (1, 0)], np.random.default_rng(0))
    trace.clear()
    assert trace.collect(np.arange(2)).num_rows == 0
