"""Checkpoints side by side: js by step, and the overlap of high-divergence sets, against sets made
in Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.core import Trajectory
from evaluators.cutoffs import HIGH_DIVERGENCE
from evaluators.database.run_tables import RunTables
from evaluators.shifts.evolution import high_overlap, js_by_step, same_responses, step_of
from evaluators.shifts.grid import keys, middles
from tests.support.shift_runs import LN2, MANIFEST, opened, tokens_of, write_run

KEYS = [Trajectory(f"p{p}", s, "given", None) for p in range(3) for s in range(2)]
STEPS = (100, 200, 300)


def manifest(rl: str) -> dict[str, Any]:
    return MANIFEST | {"models": {"base": "base", "rl": rl}}


def score(
    path: Path, seed: int, rl: str, missing: float = 0.1, keys: list[Trajectory] = KEYS
) -> Path:
    """Measurements of the same tokens, each time others, of which some are missing."""
    rng, rows = np.random.default_rng(seed), {}
    for place, key in enumerate(keys):
        length = 50 + place
        js = np.where(rng.random(length) < 0.3, rng.uniform(0, LN2, length), 0).astype(np.float32)
        rows[key] = tokens_of(
            key, js=[None if rng.random() < missing else float(value) for value in js]
        )
    return write_run(path, rows, manifest(rl), num_parts=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunTables, ...]]:
    folder = tmp_path_factory.mktemp("runs")
    with opened(
        *(score(folder / f"s{step}", step, f"ckpt/global_step_{step}/") for step in STEPS)
    ) as found:
        yield found


def rows_of(run: RunTables) -> dict[tuple[Any, ...], float | None]:
    table = run.query(f"SELECT direction, problem, sample, position, js FROM {run.tokens}")
    return {tuple(row.values())[:-1]: row["js"] for row in table.to_pylist()}


def test_js_by_step_is_that_of_each_run(runs: tuple[RunTables, ...]) -> None:
    found = js_by_step(runs).to_pylist()
    assert [(row["step"], row["label"]) for row in found] == [(step, f"s{step}") for step in STEPS]
    for run, row in zip(runs, found, strict=True):
        js = np.array([value for value in rows_of(run).values() if value is not None])
        assert row["direction"] == "given" and row["positions"] == len(js)
        assert row["mean"] == pytest.approx(js.mean(), rel=1e-9)
        assert row["share_high"] == (js > HIGH_DIVERGENCE).mean()
        quantiles = np.quantile(
            middles(keys(js.astype(np.float32))),
            [0.5, 0.75, 0.9, 0.95, 0.99],
            method="inverted_cdf",
        )
        assert [row[name] for name in ("median", "p75", "p90", "p95", "p99")] == pytest.approx(
            quantiles, rel=1e-9
        )


def test_high_overlap_is_the_jaccard_index_over_what_both_have_measured(
    runs: tuple[RunTables, ...],
) -> None:
    found, last = high_overlap(runs).to_pylist(), rows_of(runs[-1])
    assert [row["step"] for row in found] == list(STEPS)
    for run, row in zip(runs, found, strict=True):
        both = {
            key: js for key, js in rows_of(run).items() if js is not None and last[key] is not None
        }
        mine = {key for key, js in both.items() if js > HIGH_DIVERGENCE}
        theirs = {key for key in both if (last[key] or 0) > HIGH_DIVERGENCE}
        assert (row["shared"], row["either"]) == (len(mine & theirs), len(mine | theirs))
        assert row["jaccard"] == len(mine & theirs) / len(mine | theirs) and row[
            "positions"
        ] == len(both)
    assert found[-1]["jaccard"] == 1.0


def test_a_pair_that_is_nowhere_high_has_no_overlap(tmp_path: Path) -> None:
    runs = {name: {key: tokens_of(key, js=[0.0, 0.01]) for key in KEYS} for name in ("a", "b")}
    with opened(*(write_run(tmp_path / name, rows) for name, rows in runs.items())) as found:
        rows = high_overlap(found).to_pylist()
    assert [(row["shared"], row["either"], row["jaccard"], row["positions"]) for row in rows] == [
        (0, 0, None, 12)
    ] * 2


def test_runs_of_other_responses_have_no_overlap_and_their_js_stands(
    runs: tuple[RunTables, ...], tmp_path: Path
) -> None:
    one_token = {key: tokens_of(key, js=[0.5], token=[place]) for place, key in enumerate(KEYS)}
    other = write_run(
        tmp_path / "other", one_token | {KEYS[0]: tokens_of(KEYS[0], js=[0.5], token=[9])}
    )
    fewer = write_run(tmp_path / "fewer", dict(list(one_token.items())[1:]))
    with opened(other, fewer, write_run(tmp_path / "one", one_token)) as found:
        for pair in ((found[0], found[2]), (found[1], found[2]), (found[2], found[1])):
            assert not same_responses(*pair)
            assert (
                high_overlap(pair).num_rows == 0
                and high_overlap(pair).schema == high_overlap(runs).schema
            )
            assert js_by_step(pair).num_rows == 2
        assert same_responses(found[2], found[2])
    assert same_responses(runs[0], runs[1])


def test_no_runs_give_empty_tables(runs: tuple[RunTables, ...]) -> None:
    assert high_overlap([]) == high_overlap(runs).slice(0, 0)
    assert js_by_step([]) == js_by_step(runs).slice(0, 0)


@pytest.mark.parametrize(
    ("models", "step"),
    [
        ({"rl": "a/global_step_100"}, 100),
        ({"rl": "a/global_step_100/actor/huggingface"}, 100),
        ({"rl": "runs/step_5/checkpoint-250/"}, 250),
        ({"rl": "iter_0000020"}, 20),
        ({"rl": "org/Qwen-SFT-v3"}, None),
        ({"rl": "org/Qwen2.5-7B"}, None),
        ({"rl": "final"}, None),
        ({"rl": None}, None),
        (None, None),
        (3, None),
    ],
)
def test_a_step_is_the_number_that_the_models_name_calls_so(models: Any, step: int | None) -> None:
    assert step_of({"models": models}) == step
