"""What is measured of each arm, against numbers worked out by hand and a slow, obvious count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from engine.store.schema import TOKENS
from evaluators.cutoffs import HIGH_DIVERGENCE
from evaluators.scores.divergence import measure_divergence
from evaluators.scores.summary_table import render_divergence

FLOATS = ("js", "entropy_base", "entropy_rl", "logp_base", "logp_rl")
ZERO: dict[str, Any] = {
    "problem": "a",
    "sample": 0,
    "position": 0,
    "token": 0,
    "intervened": False,
    "effective": False,
}
Row = dict[str, Any]


def row(direction: str, budget: int | None, *values: float | None) -> Row:
    """A token with these values of FLOATS."""
    return (
        ZERO | {"direction": direction, "budget": budget} | dict(zip(FLOATS, values, strict=False))
    )


def table(rows: list[Row]) -> pa.Table:
    filled = [{field.name: None for field in TOKENS} | row for row in rows]
    return pa.Table.from_pylist(filled, TOKENS)


def measure(rows: list[Row]) -> list[Row]:
    return measure_divergence(ds.dataset(table(rows)))


def rendered(rows: list[Row], width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(render_divergence(rows))
    return capture.get()


def test_an_arm_holds_the_numbers_worked_out_by_hand() -> None:
    rows = [
        row("forward", 8, 0.5, 1.0, 2.0, -1.0, -4.0),
        row("forward", 8, 0.0, 3.0, 0.0, -3.0, -2.0),
        row("forward", 8, None, 2.0, None, -0.5, None),
    ]
    assert measure(rows) == [
        {
            "direction": "forward",
            "budget": 8,
            "tokens": 3,
            "positions": 2,
            "js_mean": 0.25,
            "high_divergence_share": 0.5,
            "entropy_base_mean": 2.0,
            "entropy_rl_mean": 1.0,
            "logp_base_mean": -1.5,
            "logp_rl_mean": -3.0,
        }
    ]


def test_only_what_is_above_the_bound_is_high() -> None:
    [arm] = measure(
        [
            row("given", None, js)
            for js in (HIGH_DIVERGENCE - 1e-6, HIGH_DIVERGENCE + 1e-6, 0.0, 0.69)
        ]
    )
    assert arm["high_divergence_share"] == 0.5


def test_arms_are_forward_reverse_given_with_budgets_rising_and_unlimited_last() -> None:
    arms = [
        ("forward", 0),
        ("forward", 2),
        ("forward", 16),
        ("forward", None),
        ("reverse", 1),
        ("reverse", None),
        ("given", None),
    ]
    found = measure([row(*arm, 0.1) for arm in reversed(arms)])
    assert [(arm["direction"], arm["budget"]) for arm in found] == arms


def test_the_mean_of_nothing_is_none_and_not_zero() -> None:
    [arm] = measure([row("reverse", 0, None, None, 1.0, None, -1.0)])
    assert (arm["tokens"], arm["positions"], arm["entropy_rl_mean"]) == (1, 0, 1.0)
    assert arm["js_mean"] is arm["high_divergence_share"] is arm["entropy_base_mean"] is None


def test_a_run_without_tokens_has_no_arms() -> None:
    assert measure_divergence(ds.dataset([], schema=TOKENS, format="parquet")) == measure([]) == []


def test_what_is_measured_survives_json_unchanged() -> None:
    found = measure([row("given", None, 0.1), row("forward", 1)])
    assert json.loads(json.dumps(found, allow_nan=False)) == found


VALUES = st.none() | st.floats(-20, 20, width=32)
ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from(["forward", "reverse", "given"]),
        st.sampled_from([0, 3, None]),
        *[VALUES] * 5,
    ),
    max_size=20,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(ROWS, st.integers(1, 5))
def test_it_is_what_an_obvious_count_gives_however_the_rows_are_spread_over_files(
    tmp_path: Path, rows: list[Row], num_per_file: int
) -> None:
    files = [tmp_path / f"{place}.parquet" for place in range(0, len(rows), num_per_file)]
    for place, file in enumerate(files):
        pq.write_table(
            table(rows[place * num_per_file : (place + 1) * num_per_file]), file, row_group_size=2
        )
    found = measure_divergence(ds.dataset(list(map(str, files)), schema=TOKENS, format="parquet"))
    assert {(arm["direction"], arm["budget"]) for arm in found} == {
        (r["direction"], r["budget"]) for r in rows
    }
    for arm in found:
        mine = [
            r for r in rows if (r["direction"], r["budget"]) == (arm["direction"], arm["budget"])
        ]
        js = [r["js"] for r in mine if r["js"] is not None]
        assert (arm["tokens"], arm["positions"]) == (len(mine), len(js))
        high = sum(value > HIGH_DIVERGENCE for value in js)
        assert arm["high_divergence_share"] == (high / len(js) if js else None)
        for name in FLOATS:
            seen = [r[name] for r in mine if r[name] is not None]
            expected = pytest.approx(sum(seen) / len(seen), rel=1e-6, abs=1e-6) if seen else None
            assert arm[f"{name}_mean"] == expected


def test_the_table_shows_each_arm_and_a_dash_for_what_nobody_measured() -> None:
    text = rendered(
        measure([row("given", None, 0.25, 1.5, 0.5, -2.0, -1.0), row("forward", 0, None, 1.5)])
    )
    lines = [line.split() for line in text.splitlines()]
    assert ["given", "-", "1", "1", "0.250", "100.0", "1.500", "0.500", "-2.000", "-1.000"] in lines
    assert ["forward", "0", "(base)", "1", "0", "-", "-", "1.500", "-", "-", "-"] in lines


@pytest.mark.parametrize("width", [64, 80])
def test_a_narrow_terminal_cuts_off_no_number(width: int) -> None:
    rows = measure([row("reverse", None, 0.25, 11.5, 10.5, -12.0, -11.0)])
    rows[0] |= {"tokens": 123_456_789, "positions": 123_456_789}
    text = rendered(rows, width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert max(map(len, text.splitlines())) <= width
