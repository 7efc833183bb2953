"""The summary of a small table whose numbers were worked out by hand."""

import json
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console

from engine.errors import XsampleError
from engine.record import GRADES, RESPONSES
from evaluators.summary import render, summarise

# direction, budget, problem, sample, tokens, finish_reason, interventions, effective, verdict
ROWS = [
    ("reverse", 0, "a", 0, 10, "stop", 0, 0, "correct"),
    ("forward", None, "a", 0, 10, "stop", 4, 2, "correct"),
    ("forward", None, "a", 1, 20, "stop", 2, 1, "wrong"),
    ("forward", None, "b", 0, 30, "length", 0, 0, "no_answer"),
    ("forward", None, "b", 1, 60, "length", 6, 3, "timed_out"),
    ("forward", 8, "a", 0, 10, "stop", 1, 1, "ungradable"),
    ("forward", 8, "b", 0, 10, "stop", 1, 0, "correct"),
    ("forward", 0, "a", 0, 10, "stop", 0, 0, "wrong"),
]


def tables(rows: list[tuple[Any, ...]]) -> tuple[pa.Table, pa.Table]:
    responses, grades = [], []
    for direction, budget, problem, sample, tokens, finish, interventions, effective, verdict in rows:
        key = {"direction": direction, "budget": budget, "problem": problem, "sample": sample}
        text = {"prompt_token_ids": [1], "token_ids": [2] * tokens, "text": "", "forked_from": None, "seed": 0}
        counts = {"tokens": tokens, "interventions": interventions, "effective_interventions": effective}
        responses.append({**key, **text, **counts, "finish_reason": finish})
        grades.append({**key, "verdict": verdict, "correct": None})
    return pa.Table.from_pylist(responses, schema=RESPONSES), pa.Table.from_pylist(grades[::-1], schema=GRADES)


def arm_of(summary: dict[str, Any], direction: str, budget: int | None) -> dict[str, Any]:
    [arm] = [arm for arm in summary["arms"] if (arm["direction"], arm["budget"]) == (direction, budget)]
    return arm  # type: ignore[no-any-return]


def rendered(summary: dict[str, Any], width: int = 160) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(render(summary))
    return capture.get()


def test_an_arm_holds_the_numbers_worked_out_by_hand() -> None:
    arm = arm_of(summarise(*tables(ROWS)), "forward", None)
    assert 0 <= arm.pop("accuracy_low") <= 0.25 <= arm.pop("accuracy_high") <= 0.5
    assert arm == {
        "direction": "forward",
        "budget": None,
        "problems": 2,
        "samples": 2,
        "responses": 4,
        "accuracy": 0.25,
        "interventions": 3.0,
        "interventions_share": 0.1,
        "effective": 1.5,
        "effective_share": 0.05,
        "tokens_mean": 30.0,
        "tokens_median": 25.0,
        "no_answer_rate": 0.25,
        "truncated_rate": 0.5,
        "verdicts": {"correct": 1, "wrong": 1, "no_answer": 1, "timed_out": 1, "ungradable": 0},
    }


def test_arms_are_ordered_forward_first_and_unlimited_last() -> None:
    arms = [(arm["direction"], arm["budget"]) for arm in summarise(*tables(ROWS))["arms"]]
    assert arms == [("forward", 0), ("forward", 8), ("forward", None), ("reverse", 0)]


def test_the_total_counts_every_response() -> None:
    assert summarise(*tables(ROWS))["total"] == {
        "problems": 2,
        "responses": 8,
        "tokens": 160,
        "interventions": 14,
        "effective": 7,
        "truncated": 2,
        "verdicts": {"correct": 3, "wrong": 2, "no_answer": 1, "timed_out": 1, "ungradable": 1},
    }


def test_an_undecided_answer_stays_in_the_denominator() -> None:
    assert arm_of(summarise(*tables(ROWS)), "forward", 8)["accuracy"] == 0.5


def test_a_problem_weighs_the_same_whatever_its_number_of_samples() -> None:
    extra = ("forward", 0, "b", 0, 10, "stop", 0, 0, "correct")
    rows = [*ROWS, extra, ("forward", 0, "a", 1, 10, "stop", 0, 0, "wrong")]
    assert arm_of(summarise(*tables(rows)), "forward", 0)["accuracy"] == 0.5


def test_a_summary_survives_json_unchanged() -> None:
    summary = summarise(*tables(ROWS))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_response_without_a_grade_is_an_error() -> None:
    responses, grades = tables(ROWS)
    with pytest.raises(XsampleError, match="1 of 8 responses have no grade"):
        summarise(responses, grades.slice(1))


def test_a_trajectory_that_is_there_twice_is_an_error() -> None:
    with pytest.raises(XsampleError, match="1 trajectories are there more than once"):
        summarise(*tables([*ROWS, ROWS[0]]))


def test_a_run_without_responses_has_no_arms() -> None:
    summary = summarise(*tables([]))
    assert summary["arms"] == []
    assert summary["total"]["responses"] == 0
    assert render(summary).row_count == 0


def test_the_table_shows_each_arm_and_names_the_plain_models() -> None:
    lines = rendered(summarise(*tables(ROWS))).splitlines()
    [base] = [line for line in lines if "0 (base)" in line]
    [unlimited] = [line for line in lines if "unlimited" in line]
    [rl] = [line for line in lines if "0 (RL)" in line]
    assert base.split()[3:5] == ["0.0", "0.0-0.0"]
    assert rl.split()[3:5] == ["100.0", "100.0-100.0"]
    for cell in (" 25.0 ", " 0.0-50.0 ", "3.0 (10.0%)", "1.5 (5.0%)", " 30 ", " 25.0 ", " 50.0 "):
        assert cell in unlimited


def test_undecided_answers_are_named_below_the_table_where_there_are_some() -> None:
    assert "counted as not correct: 1 timed out, 1 ungradable" in rendered(summarise(*tables(ROWS)))
    assert "counted as not correct" not in rendered(summarise(*tables(ROWS[:1])))


def test_a_narrow_terminal_cuts_off_no_number() -> None:
    assert "\N{HORIZONTAL ELLIPSIS}" not in rendered(summarise(*tables(ROWS)), width=80)
