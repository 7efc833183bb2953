"""Every statistic of one run, against a direct NumPy computation over its rows, and cases worked
out by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.arrays import Floats
from engine.core import Trajectory
from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.database.run_tables import MissingColumns, RunTables, open_database, open_run
from evaluators.shifts.entropy import entropy_histogram, entropy_joint, sequences
from evaluators.shifts.grid import keys, middles
from evaluators.shifts.identity import frequent_tokens, token_js
from evaluators.shifts.mechanics import shift_classes, tail_probability, top1_ranks, topk_overlap
from evaluators.shifts.overlap import count_overlap
from evaluators.shifts.position import js_by_position
from evaluators.shifts.robustness import truncation_name, truncations
from evaluators.shifts.sparsity import CUTOFFS, PERCENTILES, js_histogram, js_percentiles, js_shares
from tests.support.shift_runs import (
    LN2,
    MANIFEST,
    opened,
    random_run,
    tokens_of,
    trajectories,
    write_run,
)

MEASUREMENTS: list[Callable[[RunTables], pa.Table]] = [
    js_histogram, js_percentiles, js_shares, js_by_position, entropy_histogram, entropy_joint,
    sequences, frequent_tokens, token_js, topk_overlap, top1_ranks, tail_probability, shift_classes,
    truncations,
]  # fmt: skip
LOOKED_AT = {"forward": None, "reverse": 8}
Row = dict[str, Any]


class Measured:
    """The measured rows of one direction, as NumPy columns; the oracle's view of a run."""

    def __init__(self, run: Path, direction: str) -> None:
        files = sorted((run / "tokens").iterdir())
        rows: list[Row] = pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()
        self.arm = [
            r for r in rows if r["direction"] == direction and r["budget"] == LOOKED_AT[direction]
        ]
        self.rows = [r for r in self.arm if r["js"] is not None]
        self.js = self["js"]
        self.near, self.high = self.js <= NEAR_ZERO, self.js > HIGH_DIVERGENCE
        self.of_class = {"low": self.near, "middle": ~self.near & ~self.high, "high": self.high}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return np.array([row[name] for row in self.rows])


@pytest.fixture(scope="module", params=[0, 1])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunTables]:
    with opened(random_run(tmp_path_factory.mktemp("runs") / "run", seed=request.param)) as (
        tables,
    ):
        yield tables


@pytest.fixture(params=["forward", "reverse"])
def rows(request: pytest.FixtureRequest, run: RunTables) -> Measured:
    return Measured(run.path, request.param)


def of(table: pa.Table, rows: Measured, **where: object) -> list[Row]:
    """Rows of a measurement in the direction of `rows`, and with these values."""
    where = {"direction": rows.arm[0]["direction"]} | where
    return [
        row for row in table.to_pylist() if all(row[name] == value for name, value in where.items())
    ]


def column(found: list[Row], name: str) -> Floats:
    return np.array([row[name] for row in found], np.float64)


def inverted_cdf(js: NDArray[Any], shares: Any) -> Floats:
    """Quantiles of the values rounded to the grid."""
    return np.asarray(
        np.quantile(middles(keys(js.astype(np.float32))), shares, method="inverted_cdf")
    )


def close(found: Any, expected: Any) -> bool:
    return np.allclose(
        np.asarray(found, float), np.asarray(expected, float), rtol=1e-9, atol=0, equal_nan=True
    )


# Sparsity


def test_the_histogram_counts_every_position_once(run: RunTables, rows: Measured) -> None:
    found = of(js_histogram(run), rows)
    assert found[0]["positions"] == np.count_nonzero(rows.js == 0)
    edges = np.array([row["js_low"] for row in found[1:]] + [found[-1]["js_high"]])
    assert (
        close(edges, edges[0] * 2 ** (np.arange(len(edges)) / 4)) and log(edges[0], 2) * 4 % 1 == 0
    )
    assert (
        column(found[1:], "positions").tolist()
        == np.histogram(rows.js[rows.js > 0], edges)[0].tolist()
    )
    assert close(column(found, "share"), column(found, "positions") / len(rows.js))


def test_percentiles_are_the_inverted_cdf(run: RunTables, rows: Measured) -> None:
    found = of(js_percentiles(run), rows)
    shares = np.array(PERCENTILES) / 100
    assert column(found, "percentile").tolist() == list(PERCENTILES)
    assert close(column(found, "js"), inverted_cdf(rows.js, shares))
    raw = np.quantile(rows.js, shares, method="inverted_cdf")
    assert np.allclose(column(found, "js"), raw, rtol=0.0014, atol=0)


def test_shares_below_and_above_cutoffs_are_exact(run: RunTables, rows: Measured) -> None:
    found = of(js_shares(run), rows)
    assert column(found, "cutoff").tolist() == list(CUTOFFS)
    assert column(found, "at_most").tolist() == [
        np.count_nonzero(rows.js <= cutoff) / len(rows.js) for cutoff in CUTOFFS
    ]
    assert column(found, "above").tolist() == [
        np.count_nonzero(rows.js > cutoff) / len(rows.js) for cutoff in CUTOFFS
    ]
    assert {(row["positions"], row["tokens"]) for row in found} == {(len(rows.rows), len(rows.arm))}
    assert len(rows.rows) < len(rows.arm)


# Position


def test_js_by_position_is_that_of_the_rows_in_each_bin(run: RunTables, rows: Measured) -> None:
    length: dict[object, int] = {}
    for row in rows.arm:
        length[row["problem"], row["sample"]] = length.get((row["problem"], row["sample"]), 0) + 1
    places = np.array(
        [50 * row["position"] // length[row["problem"], row["sample"]] for row in rows.rows]
    )
    found = of(js_by_position(run), rows)
    assert [row["bin"] for row in found] == np.unique(places).tolist()
    for row in found:
        js = rows.js[places == row["bin"]]
        assert (row["start"], row["stop"]) == (row["bin"] / 50, (row["bin"] + 1) / 50)
        assert row["positions"] == len(js) and close(row["mean"], js.mean())
        quantiles = [row[name] for name in ("p5", "p25", "median", "p75", "p95")]
        assert close(quantiles, inverted_cdf(js, [0.05, 0.25, 0.5, 0.75, 0.95]))


# Entropy


@pytest.mark.parametrize("policy", ["base", "rl"])
def test_entropies_of_each_class_are_counted_in_tenths_of_a_nat(
    run: RunTables, rows: Measured, policy: str
) -> None:
    table, last = entropy_histogram(run), int(rows[f"entropy_{policy}"].max() * 10)
    for name, of_class in rows.of_class.items():
        bins = np.floor(rows[f"entropy_{policy}"][of_class] * 10).astype(int)
        found = of(table, rows, policy=policy, divergence=name)
        assert column(found, "positions").tolist() == np.bincount(bins, minlength=last + 1).tolist()
        assert close(column(found, "share"), column(found, "positions") / len(bins))
        assert close(column(found, "entropy_low"), np.arange(last + 1) / 10)
        assert close(column(found, "entropy_high"), np.arange(1, last + 2) / 10)


def test_the_joint_density_counts_pairs_of_bins(run: RunTables, rows: Measured) -> None:
    pairs = np.floor(np.stack([rows["entropy_base"], rows["entropy_rl"]], 1) * 10).astype(int)
    expected, counts = np.unique(pairs, axis=0, return_counts=True)
    found = of(entropy_joint(run), rows)
    assert close(
        np.stack([column(found, f"entropy_{policy}_low") for policy in ("base", "rl")], 1),
        expected / 10,
    )
    assert column(found, "positions").tolist() == counts.tolist()


def test_a_sequence_has_the_means_of_its_measured_positions(run: RunTables, rows: Measured) -> None:
    found = of(sequences(run), rows)
    assert len(found) == len({(row["problem"], row["sample"]) for row in rows.rows})
    for row in found:
        mine = (rows["problem"] == row["problem"]) & (rows["sample"] == row["sample"])
        assert row["positions"] == mine.sum() and row["budget"] == LOOKED_AT[row["direction"]]
        means = [row[f"{name}_mean"] for name in ("js", "entropy_base", "entropy_rl")]
        assert close(
            means, [rows[name][mine].mean() for name in ("js", "entropy_base", "entropy_rl")]
        )


def test_at_most_so_many_sequences_are_taken_and_the_same_each_time(
    run: RunTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluators.shifts.entropy.MAX_SEQUENCES", 2)
    chosen = sequences(run).select(["direction", "problem", "sample"]).to_pylist()
    by_direction = [
        {(r["problem"], r["sample"]) for r in chosen if r["direction"] == name}
        for name in LOOKED_AT
    ]
    assert len(chosen) == 4 and by_direction[0] == by_direction[1]
    assert sequences(run).select(["direction", "problem", "sample"]).to_pylist() == chosen


# Identity


@pytest.mark.parametrize("name", ["low", "high"])
def test_the_most_frequent_tokens_come_first(run: RunTables, rows: Measured, name: str) -> None:
    tokens = rows["token"]
    ids, counts = np.unique(tokens[rows.of_class[name]], return_counts=True)
    order = np.lexsort((ids, -counts))[:50]
    found = of(frequent_tokens(run), rows, divergence=name)
    assert [row["rank"] for row in found] == list(range(1, len(order) + 1))
    assert [row["token"] for row in found] == ids[order].tolist()
    assert [row["positions"] for row in found] == counts[order].tolist()
    assert close(column(found, "share"), counts[order] / rows.of_class[name].sum())
    assert close(
        column(found, "share_high"), [rows.high[tokens == token].mean() for token in ids[order]]
    )


def test_each_frequent_token_has_its_whole_distribution_of_js(
    run: RunTables, rows: Measured
) -> None:
    top = of(frequent_tokens(run), rows, divergence="high")[:20]
    table = token_js(run)
    assert list(dict.fromkeys(row["token"] for row in of(table, rows))) == [
        row["token"] for row in top
    ]
    for expected in top:
        found = of(table, rows, token=expected["token"])
        js = rows.js[rows["token"] == expected["token"]]
        edges = np.array([row["js_low"] for row in found[1:]] + [found[-1]["js_high"]])
        assert (
            found[0]["positions"] == np.count_nonzero(js == 0)
            and found[0]["rank"] == expected["rank"]
        )
        assert close(edges, edges[0] * 2 ** (np.arange(len(edges)) / 2))
        assert (
            column(found[1:], "positions").tolist() == np.histogram(js[js > 0], edges)[0].tolist()
        )


def test_tokens_are_shown_as_the_vocabulary_has_them_and_else_by_their_number(
    tmp_path: Path,
) -> None:
    key = Trajectory("p", 0, "forward", None)
    rows = {key: tokens_of(key, token=[5, 6, 7], js=[0.5, 0.5, 0.5])}
    run = write_run(tmp_path / "run", rows, vocabulary={5: " the", 6: "<|end|>"})
    with opened(run) as (tables,):
        assert frequent_tokens(tables)["text"].to_pylist() == [" the", "<|end|>", "#7"]
        (run / "vocabulary.parquet").write_bytes(b"PAR1")
        assert set(token_js(tables)["text"].to_pylist()) == {"#5", "#6", "#7"}


# Mechanics


def test_topk_overlap_is_the_mean_share_of_common_tokens(run: RunTables, rows: Measured) -> None:
    lists = [(r["topk_base"], r["topk_rl"]) for r in rows.rows if r["js"] > HIGH_DIVERGENCE]
    found = of(topk_overlap(run), rows)
    assert [row["k"] for row in found] == [1, 2, 3, 4, 5]
    for row in found:
        k = row["k"]
        shares = [
            len({*a[:k]} & {*b[:k]}) / k for a, b in lists if a and b and min(len(a), len(b)) >= k
        ]
        assert row["positions"] == len(shares) and close(row["overlap"], np.mean(shares))


some_lists = st.lists(
    st.tuples(*[st.lists(st.integers(0, 12), max_size=9, unique=True)] * 2), min_size=1, max_size=30
)


@given(some_lists)
def test_overlap_of_any_lists(pairs: list[tuple[list[int], list[int]]]) -> None:
    base, rl = (
        pa.array([[99], *side], pa.list_(pa.int32())).slice(1) for side in zip(*pairs, strict=True)
    )
    found = count_overlap(base, rl, np.arange(len(pairs)))
    for k in range(1, len(found.shared) + 1):
        shared = [len({*a[:k]} & {*b[:k]}) for a, b in pairs if min(len(a), len(b)) >= k]
        assert (found.shared[k - 1], found.positions[k - 1]) == (sum(shared), len(shared))
    assert len(found.shared) == max(min(len(a), len(b)) for a, b in pairs)


@pytest.mark.parametrize(("of_policy", "under"), [("rl", "base"), ("base", "rl")])
def test_top1_ranks_are_counted_to_ten_and_beyond(
    run: RunTables, rows: Measured, of_policy: str, under: str
) -> None:
    ranks = np.minimum(rows[f"rank_{under}_of_top1_{of_policy}"][rows.high].astype(int), 11)
    counts = np.bincount(ranks, minlength=12)[1:]
    found = of(top1_ranks(run), rows, of=of_policy, under=under)
    assert column(found, "rank").tolist() == list(range(1, 12))
    assert column(found, "positions").tolist() == counts.tolist()
    assert close(column(found, "share"), counts / counts.sum())
    assert close(column(found, "cumulative"), counts.cumsum() / counts.sum())


@pytest.mark.parametrize(("of_policy", "under"), [("rl", "base"), ("base", "rl")])
def test_tail_probability_counts_what_the_other_gives_little(
    run: RunTables, rows: Measured, of_policy: str, under: str
) -> None:
    probability = np.exp(rows[f"logp_{under}_of_top1_{of_policy}"][rows.high])
    found = of(tail_probability(run), rows, of=of_policy, under=under)
    assert column(found, "cutoff").tolist() == [0.5, 0.1, 0.05, 0.01, 0.001]
    assert close(column(found, "below"), [(probability < row["cutoff"]).mean() for row in found])
    assert {row["positions"] for row in found} == {len(probability)}


def test_shift_classes_are_ranks_1_then_2_to_3_then_more(run: RunTables, rows: Measured) -> None:
    for where, chosen in (("all", rows.js >= 0), ("high", rows.high)):
        ranks = rows["rank_base_of_top1_rl"][chosen].astype(int)
        counts = [(ranks == 1).sum(), ((ranks == 2) | (ranks == 3)).sum(), (ranks > 3).sum()]
        found = of(shift_classes(run), rows, where=where)
        assert [row["shift"] for row in found] == ["unshifted", "marginal", "shifted"]
        assert column(found, "positions").tolist() == counts
        assert close(column(found, "share"), np.array(counts) / len(ranks))


# Robustness


def two_outcome_js(p: Floats, q: Floats) -> Floats:
    """JS of (p, 1 - p) and (q, 1 - q), as entropy of the mean less mean of the entropies."""

    def entropy(x: Floats) -> Floats:
        terms = [np.where(y > 0, -y * np.log(np.where(y > 0, y, 1)), 0.0) for y in (x, 1 - x)]
        return np.asarray(sum(terms))

    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def test_other_truncations_come_from_stored_data(run: RunTables, rows: Measured) -> None:
    own, greedy, full = of(truncations(run), rows)
    agree = rows["top1_base"] == rows["top1_rl"]
    bound = two_outcome_js(np.exp(rows["logp_base"]), np.exp(rows["logp_rl"]))
    assert [own["truncation"], own["source"]] == ["top-p 0.7", "measured"]
    assert [greedy["truncation"], greedy["source"]] == ["top-1 (greedy)", "stored data, exact"]
    assert (
        full["truncation"].startswith("full distribution")
        and full["source"] == "stored data, a lower bound"
    )
    for row, js in ((own, rows.js), (greedy, np.where(agree, 0, np.log(2))), (full, bound)):
        assert row["positions"] == len(js)
        assert [row["near_zero"], row["high"]] == [
            (js <= NEAR_ZERO).mean(),
            (js > HIGH_DIVERGENCE).mean(),
        ]
        assert close(row["mean"], js.mean())


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ((1.0, 0.7, 0), "top-p 0.7"),
        ((0.6, 0.95, 20), "temperature 0.6, top-p 0.95, top-k 20"),
        ((1.0, 1.0, 0), "full distribution"),
        ((0.0, 1.0, 0), "top-1 (greedy)"),
        ((1.0, 0.7, 1), "top-1 (greedy)"),
    ],
)
def test_a_truncation_has_a_name(settings: tuple[float, float, int], name: str) -> None:
    assert truncation_name(*settings) == name


# Cases by hand


def test_identical_models_are_nowhere_apart(tmp_path: Path) -> None:
    same = {
        "js": [0.0] * 8,
        "top1_base": range(8),
        "top1_rl": range(8),
        "logp_base": [-0.5] * 8,
        "logp_rl": [-0.5] * 8,
    }
    rows = {key: tokens_of(key, **same) for key in trajectories()}
    with opened(write_run(tmp_path / "run", rows)) as (run,):
        assert set(js_percentiles(run)["js"].to_pylist()) == {0.0}
        assert [(r["js_high"], r["share"]) for r in js_histogram(run).to_pylist()] == [
            (0.0, 1.0)
        ] * 2
        assert {(r["at_most"], r["above"]) for r in js_shares(run).to_pylist()} == {(1.0, 0.0)}
        assert {(r["near_zero"], r["high"], r["mean"]) for r in truncations(run).to_pylist()} == {
            (1.0, 0.0, 0.0)
        }
        assert set(js_by_position(run)["p95"].to_pylist()) == {0.0}
        assert frequent_tokens(run)["divergence"].unique().to_pylist() == ["low"]
        assert token_js(run).num_rows == topk_overlap(run).num_rows == top1_ranks(run).num_rows == 0


def test_disjoint_nuclei_are_ln_2_apart_everywhere(tmp_path: Path) -> None:
    apart = {
        "js": [LN2] * 8,
        "top1_base": [1] * 8,
        "top1_rl": [2] * 8,
        "topk_base": [[1]] * 8,
        "topk_rl": [[2]] * 8,
    }
    certain = {"logp_base": [0.0] * 8, "logp_rl": [-np.inf] * 8}
    rows = {key: tokens_of(key, **apart, **certain) for key in trajectories()}
    with opened(write_run(tmp_path / "run", rows)) as (run,):
        assert js_percentiles(run)["js"].to_pylist() == [pytest.approx(log(2), rel=0.0014)] * (
            2 * len(PERCENTILES)
        )
        assert js_by_position(run)["mean"].to_pylist() == [LN2] * 16
        assert {(r["near_zero"], r["high"]) for r in truncations(run).to_pylist()} == {(0.0, 1.0)}
        assert truncations(run)["mean"].to_pylist() == [pytest.approx(log(2), rel=1e-7)] * 6
        assert topk_overlap(run)["overlap"].to_pylist() == [0.0, 0.0]


# Runs that lack something


@pytest.mark.parametrize("measure", MEASUREMENTS, ids=lambda measure: measure.__name__)
def test_nothing_measured_gives_an_empty_table_with_the_same_columns(
    measure: Callable[[RunTables], pa.Table], run: RunTables, tmp_path: Path
) -> None:
    solo = {key: tokens_of(key, js=[None] * 3) for key in trajectories()}
    with opened(write_run(tmp_path / "run", solo)) as (nothing,):
        table = measure(nothing)
    assert table.num_rows == 0 and table.schema == measure(run).schema


@pytest.mark.parametrize("measure", MEASUREMENTS, ids=lambda measure: measure.__name__)
def test_a_column_that_no_part_holds_is_named(
    measure: Callable[[RunTables], pa.Table], tmp_path: Path
) -> None:
    run = random_run(tmp_path / "run", seed=0, num_parts=1)
    file = next((run / "tokens").iterdir())
    pq.write_table(pq.read_table(file).drop_columns(["js"]), file)
    with opened(run) as (tables,), pytest.raises(MissingColumns, match=r"js .*schema_version is 4"):
        measure(tables)


@pytest.mark.parametrize("config", [None, [], {}, {"temperature": "warm", "top_p": 1, "top_k": 0}])
def test_settings_that_are_not_known_are_said_to_be_so(config: object, tmp_path: Path) -> None:
    key = Trajectory("p", 0, "given", None)
    rows = {key: tokens_of(key, js=[0.5])}
    with opened(write_run(tmp_path / "run", rows, MANIFEST | {"config": config})) as (run,):
        assert truncations(run)["truncation"][0].as_py() == "as sampled (not known)"


def test_values_that_are_no_numbers_are_not_measured(tmp_path: Path) -> None:
    key, nan = Trajectory("p", 0, "forward", None), float("nan")
    rows = tokens_of(
        key, js=[0.5, nan, 0.0], entropy_base=[0.1, 0.1, nan], entropy_rl=[np.inf, 0.1, 1e30]
    )
    with opened(write_run(tmp_path / "run", {key: rows})) as (run,):
        assert js_shares(run)["positions"][0].as_py() == 2
        assert (
            entropy_histogram(run).num_rows
            == entropy_joint(run).num_rows
            == sequences(run).num_rows
            == 0
        )


def test_log_probabilities_that_are_no_numbers_or_missing_bound_and_count_nothing(
    tmp_path: Path,
) -> None:
    key, nan = Trajectory("p", 0, "forward", None), float("nan")
    logps = {"logp_base": [nan, None, -0.1, -np.inf], "logp_rl": [-0.1, -0.1, -0.1, 0.0]}
    rows = tokens_of(
        key, js=[0.5, 0.5, 0.5, 0.5], logp_base_of_top1_rl=[nan, None, -9.0, -0.1], **logps
    )
    with opened(write_run(tmp_path / "run", {key: rows})) as (run,):
        [bound] = [
            row for row in truncations(run).to_pylist() if "lower bound" in row["truncation"]
        ]
        assert (bound["positions"], bound["near_zero"], bound["high"]) == (2, 0.5, 0.5)
        assert bound["mean"] == pytest.approx(LN2 / 2)
        tail = [
            row
            for row in tail_probability(run).to_pylist()
            if row["under"] == "base" and row["cutoff"] == 0.1
        ]
        assert [(row["positions"], row["below"]) for row in tail] == [(2, 0.5)]


def test_a_run_is_measured_the_same_while_another_is_open_beside_it(tmp_path: Path) -> None:
    paths = [
        random_run(tmp_path / name, seed) for seed, name in enumerate(('it\'s "one"', "two; --"))
    ]
    with opened(*paths) as both:
        together = [[measure(run) for measure in MEASUREMENTS[:1]] for run in both]
    for path, expected in zip(paths, together, strict=True):
        with open_database() as database:
            tables = open_run(database, path, "alone").tables
            assert (
                tables is not None and [measure(tables) for measure in MEASUREMENTS[:1]] == expected
            )
