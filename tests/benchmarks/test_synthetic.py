"""The synthetic run of the benchmarks: a whole run directory whose numbers agree as measured ones
do.
"""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from benchmarks.report import bytes_by_column
from benchmarks.synthetic import ROWS_PER_PART, lengths, make_run, parts, vocabulary
from engine.store.run_store import RunStore
from engine.store.schema import TOKENS
from engine.store.verify import verify_run

ROWS = 6_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "run"
    make_run(out, ROWS)
    return out


@pytest.fixture(scope="module")
def database(run: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as database:
        database.execute(f"CREATE VIEW tokens AS FROM read_parquet('{run}/tokens/*.parquet')")
        yield database


def share(database: duckdb.DuckDBPyConnection, condition: str, where: str = "true") -> float:
    row = database.execute(f"SELECT avg(({condition})::int) FROM tokens WHERE {where}").fetchone()
    assert row is not None
    return float(row[0])


def test_it_is_a_complete_run_of_as_many_rows_as_asked(run: Path) -> None:
    found = verify_run(RunStore.read(run))
    assert found.complete
    assert found.num_tokens == ROWS


def test_it_has_all_that_a_graded_run_has(run: Path) -> None:
    store = RunStore.read(run)
    assert store.grades().num_rows == store.num_expected
    assert len(store.problems()) == 30
    assert store.vocabulary()[149_999] == "<eos>"


def test_duckdb_and_pyarrow_read_the_same(run: Path, database: duckdb.DuckDBPyConnection) -> None:
    assert (
        database.sql("FROM tokens")
        .to_arrow_table()
        .cast(TOKENS)
        .equals(RunStore.read(run).tokens().to_table())
    )


def test_the_same_seed_makes_the_same_run_with_any_number_of_processes(
    run: Path, tmp_path: Path
) -> None:
    make_run(tmp_path / "again", ROWS, processes=2)
    again, first = RunStore.read(tmp_path / "again"), RunStore.read(run)
    assert again.tokens().to_table().equals(first.tokens().to_table())
    assert again.responses().equals(first.responses())
    assert again.grades().equals(first.grades())


def test_another_seed_makes_another_run(run: Path, tmp_path: Path) -> None:
    make_run(tmp_path / "other", ROWS, seed=1)
    other: pa.Table = RunStore.read(tmp_path / "other").tokens().to_table()
    assert not other.equals(RunStore.read(run).tokens().to_table())


@pytest.mark.parametrize(
    "condition",
    [
        "(js = 0) = (nucleus_base = 1 and nucleus_rl = 1 and top1_base = top1_rl)",
        "js between 0 and ln(2)::float",
        "(token = top1_base) = (rank_base = 1) and (token = top1_rl) = (rank_rl = 1)",
        (
            "token <> top1_rl or (logp_base = logp_base_of_top1_rl and rank_base ="
            " rank_base_of_top1_rl)"
        ),
        "token <> top1_base or (logp_rl = logp_rl_of_top1_base and rank_rl = rank_rl_of_top1_base)",
        (
            "(direction = 'forward') = intervened and rank_rl <= nucleus_rl "
            "or (direction = 'forward') <> intervened and rank_base <= nucleus_base"
        ),
        "intervened = (js > 0.1) and intervened = (primary_token is not null)",
        "effective = coalesce(token <> primary_token, false)",
        "(js >= 0.1) = (topk_base is not null) and (js >= 0.1) = (topk_rl is not null)",
        (
            "topk_base is null or len(list_distinct(topk_base)) = 10 and"
            " len(list_distinct(topk_rl)) = 10"
        ),
        "topk_base is null or topk_base[1] = top1_base and topk_rl[1] = top1_rl",
        "topk_base is null or rank_base > 10 or topk_base[rank_base] = token",
        "entropy_base >= 0 and isfinite(entropy_base) and entropy_rl >= 0 and isfinite(entropy_rl)",
        (
            "greatest(logp_base, logp_rl, logp_base_of_top1_rl, logp_rl_of_top1_base) <= 0 and"
            " isfinite(logp_base)"
        ),
    ],
)
def test_in_every_row(database: duckdb.DuckDBPyConnection, condition: str) -> None:
    assert share(database, condition) == 1


def test_divergence_is_as_sparse_as_the_paper_finds_it(database: duckdb.DuckDBPyConnection) -> None:
    assert share(database, "js < 0.01") == pytest.approx(0.85, abs=0.02)
    assert share(database, "js > 0.1") == pytest.approx(0.04, abs=0.01)
    assert share(database, "top1_base = top1_rl", "js > 0.1") == pytest.approx(0.25, abs=0.1)


def test_an_eos_ends_what_was_not_cut_off(run: Path) -> None:
    for row in RunStore.read(run).responses(["token_ids", "finish_reason", "text"]).to_pylist():
        assert (
            row["finish_reason"] == "stop"
            and row["token_ids"][-1] == 149_999
            and "<eos>" not in row["text"]
        )


@pytest.mark.parametrize("rows", [60, ROWS, 3_000_000])
def test_lengths_add_up_to_the_rows_and_stay_below_the_cap(rows: int) -> None:
    length = lengths(rows, seed=0)
    assert length.sum() == rows and length.min() >= 0 and length.max() <= 8_000


def test_parts_hold_every_trajectory_once_and_are_about_equal() -> None:
    length = lengths(3_000_000, seed=0)
    found = parts(length)
    assert [trajectory for part in found for trajectory in part.trajectory.tolist()] == list(
        range(len(length))
    )
    assert max(part.length.sum() for part in found) < ROWS_PER_PART + 8_000


def test_every_token_has_a_text_of_its_own() -> None:
    assert len(set(vocabulary())) == len(vocabulary()) == 150_000


def test_bytes_a_row_are_counted_by_column(run: Path) -> None:
    rows, columns = bytes_by_column(run)
    assert rows == ROWS and set(columns) == set(TOKENS.names)
    assert 0 < columns["position"] < columns["entropy_base"] < 5
