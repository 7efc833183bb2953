"""Accuracy tables of a report: numbers worked out by hand, the same as the summary's, and pairs
between runs.
"""

from typing import Any

import pytest

from engine.errors import XsampleError
from evaluators.scores.by_arm import GradedRun, accuracy_by_budget, accuracy_differences
from evaluators.scores.summary import summarise
from tests.support.graded_tables import ROWS, samples, tables


def graded(rows: list[tuple[Any, ...]], name: str = "run") -> GradedRun:
    return GradedRun.of(name, *tables(rows), "math")


def test_accuracy_is_that_of_the_summary_arm_by_arm() -> None:
    rows = accuracy_by_budget(graded(ROWS)).to_pylist()
    for row, arm in zip(rows, summarise(*tables(ROWS))["arms"], strict=True):
        assert row.pop("low") == arm["accuracy_low"] and row.pop("high") == arm["accuracy_high"]
        assert row.pop("control") is row.pop("given") is False
        assert row == {name: arm[name] for name in row}


def test_accuracy_of_a_control_is_marked() -> None:
    assert accuracy_by_budget(graded(ROWS), control=True)["control"].to_pylist() == [True] * 4


def test_one_problem_has_no_interval() -> None:
    [row] = accuracy_by_budget(graded(samples({"a": ["gold", None]}))).to_pylist()
    assert (row["accuracy"], row["low"], row["high"]) == (0.5, None, None)


def test_differences_within_a_run_are_those_of_the_summary() -> None:
    rows = accuracy_differences(graded(ROWS)).to_pylist()
    assert [row.pop("against_run") for row in rows] == ["run"] * len(rows)
    assert rows == summarise(*tables(ROWS))["differences"]


def test_differences_between_runs_are_of_the_problems_and_samples_that_both_have() -> None:
    here = graded(
        samples({"a": ["gold", "gold", "gold"], "b": [None, "gold"], "only here": ["gold"]}), "here"
    )
    there = graded(
        samples({"Also there": ["gold"], "a": [None, "gold"], "b": ["gold", "gold", None]}), "there"
    )
    [row] = accuracy_differences(here, [there]).to_pylist()
    assert (row["against_run"], row["against_direction"], row["against_budget"]) == (
        "there",
        "forward",
        0,
    )
    assert (row["problems"], row["pairs"], row["difference"]) == (2, 4, 0.0)  # a: +1/2, b: -1/2
    [back] = accuracy_differences(there, [here]).to_pylist()
    assert back["difference"] == -row["difference"]


def test_only_equal_arms_of_two_runs_are_compared() -> None:
    here = graded(samples({"a": ["gold"]}, budget=0) + samples({"a": ["gold"]}, budget=4))
    there = graded(
        samples({"a": [None]}, budget=4) + samples({"a": ["gold"]}, "reverse", 0), "there"
    )
    rows = [
        row
        for row in accuracy_differences(here, [there]).to_pylist()
        if row["against_run"] == "there"
    ]
    assert [(row["budget"], row["against_budget"], row["difference"]) for row in rows] == [
        (4, 4, 1.0)
    ]


def test_arms_without_a_sample_in_common_have_no_difference() -> None:
    here, there = graded(samples({"a": ["gold"]})), graded(samples({"b": ["gold"]}), "there")
    [row] = accuracy_differences(here, [there]).to_pylist()
    assert (row["problems"], row["pairs"], row["difference"], row["low"]) == (0, 0, None, None)


def test_a_trajectory_that_is_there_twice_is_an_error() -> None:
    with pytest.raises(XsampleError, match="more than once"):
        graded(samples({"a": ["gold"]}) * 2)
