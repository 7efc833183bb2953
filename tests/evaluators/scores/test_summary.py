"""The summary of a small table whose numbers were worked out by hand."""

import json
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from engine.errors import XsampleError
from evaluators.scores.summary import summarise, summarise_ungraded
from evaluators.scores.summary_table import render
from tests.support.graded_tables import ROWS, samples, tables

NONE_YET = dict.fromkeys(["correct", "wrong", "no_answer", "guessed", "timed_out", "ungradable"], 0)


def arm_of(summary: dict[str, Any], direction: str, budget: int | None) -> dict[str, Any]:
    [arm] = [
        arm for arm in summary["arms"] if (arm["direction"], arm["budget"]) == (direction, budget)
    ]
    return arm  # type: ignore[no-any-return]


def rendered(summary: dict[str, Any], width: int = 160) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(render(summary))
    return capture.get()


def test_an_arm_holds_the_numbers_worked_out_by_hand() -> None:
    arm = arm_of(summarise(*tables(ROWS)), "forward", None)
    assert 0 <= arm.pop("accuracy_low") <= 0.25 <= arm.pop("accuracy_high") <= 0.5
    assert {k: found["value"] for k, found in arm.pop("pass_at_k").items()} == {"1": 0.25, "2": 0.5}
    assert {k: found["value"] for k, found in arm.pop("maj_at_k").items()} == {"1": 0.25, "2": 0.25}
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
        "guessed_rate": 0.0,
        "truncated_rate": 0.5,
        "verdicts": {**NONE_YET, "correct": 1, "wrong": 1, "no_answer": 1, "timed_out": 1},
    }


def test_arms_are_ordered_forward_first_and_unlimited_last() -> None:
    arms = [(arm["direction"], arm["budget"]) for arm in summarise(*tables(ROWS))["arms"]]
    assert arms == [("forward", 0), ("forward", 8), ("forward", None), ("reverse", 0)]


def test_given_responses_are_an_arm_after_both_directions() -> None:
    summary = summarise(*tables([*samples({"a": ["gold", "1"]}, "given", None), *ROWS]))
    assert [(arm["direction"], arm["budget"]) for arm in summary["arms"]][-2:] == [
        ("reverse", 0),
        ("given", None),
    ]
    assert arm_of(summary, "given", None)["accuracy"] == 0.5
    [line] = [
        line for line in rendered(summary).splitlines() if "given" in line and "(0.0%)" in line
    ]
    assert line.split()[:3] == ["given", "-", "50.0"]


def test_responses_without_gold_answers_are_counted_alike_and_have_no_arms() -> None:
    summary = summarise_ungraded(tables(ROWS)[0])
    graded = summarise(*tables(ROWS))["total"]
    assert summary == {
        "grader": None,
        "arms": [],
        "differences": [],
        "total": {name: count for name, count in graded.items() if name != "verdicts"},
    }
    assert json.loads(json.dumps(summary)) == summary
    assert summarise_ungraded(tables([])[0])["total"]["tokens"] == 0


def test_the_total_counts_every_response() -> None:
    assert summarise(*tables(ROWS))["total"] == {
        "problems": 2,
        "responses": 8,
        "tokens": 160,
        "interventions": 14,
        "effective": 7,
        "truncated": 2,
        "verdicts": {
            "correct": 3,
            "wrong": 2,
            "no_answer": 1,
            "guessed": 0,
            "timed_out": 1,
            "ungradable": 1,
        },
    }


def test_a_guess_is_counted_apart_and_is_not_correct() -> None:
    rows = [("forward", 0, "a", sample, 10, "stop", 0, 0, "guessed") for sample in range(3)]
    arm = arm_of(
        summarise(*tables([*rows, ("forward", 0, "a", 3, 10, "stop", 0, 0, "correct")])),
        "forward",
        0,
    )
    assert (arm["guessed_rate"], arm["no_answer_rate"], arm["accuracy"]) == (0.75, 0.0, 0.25)
    assert arm["verdicts"] == {**NONE_YET, "guessed": 3, "correct": 1}
    assert arm["maj_at_k"]["4"]["value"] == 1.0  # a guess does not vote


def test_an_undecided_answer_stays_in_the_denominator() -> None:
    assert arm_of(summarise(*tables(ROWS)), "forward", 8)["accuracy"] == 0.5


def test_a_problem_weighs_the_same_whatever_its_number_of_samples() -> None:
    extra = ("forward", 0, "b", 0, 10, "stop", 0, 0, "correct")
    rows = [*ROWS, extra, ("forward", 0, "a", 1, 10, "stop", 0, 0, "wrong")]
    assert arm_of(summarise(*tables(rows)), "forward", 0)["accuracy"] == 0.5


def test_pass_and_maj_are_there_for_powers_of_two_and_for_all_samples() -> None:
    answers: list[str | None] = ["gold", "gold", "1", "1", "1", None]
    arm = arm_of(summarise(*tables(samples({"a": answers, "b": ["gold"] * 6}))), "forward", 0)
    assert list(arm["pass_at_k"]) == list(arm["maj_at_k"]) == ["1", "2", "4", "6"]
    assert arm["pass_at_k"]["6"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert arm["maj_at_k"]["6"] == {"value": 0.5, "low": 0.0, "high": 1.0}


def test_pass_and_maj_of_more_samples_than_a_problem_has_are_null() -> None:
    arm = arm_of(summarise(*tables(samples({"a": ["gold"] * 4, "b": ["gold"]}))), "forward", 0)
    assert arm["samples"] == 4
    assert [arm["pass_at_k"][k] for k in "24"] == [arm["maj_at_k"][k] for k in "24"] == [None, None]
    assert arm["pass_at_k"]["1"]["value"] == arm["maj_at_k"]["1"]["value"] == 1.0


def test_one_answer_written_in_two_ways_is_one_vote() -> None:
    written = summarise(*tables(samples({"a": ["gold", "gold", "1/2", r"$\dfrac{1}{2}$", "0.5"]})))
    apart = summarise(*tables(samples({"a": ["gold", "gold", "x+x", "2x", "x2"]})))
    assert written["arms"][0]["maj_at_k"]["5"]["value"] == 0.0
    assert apart["arms"][0]["maj_at_k"]["5"]["value"] == 1.0


def test_an_answer_that_could_not_be_graded_votes_as_its_own_text() -> None:
    rows = [
        ("forward", 0, "a", n, 10, "stop", 0, 0, verdict, "9!!")
        for n, verdict in enumerate(("timed_out", "ungradable"))
    ]
    rows += [("forward", 0, "a", 2, 10, "stop", 0, 0, "correct", "9!!")]
    assert summarise(*tables(rows))["arms"][0]["maj_at_k"]["3"]["value"] == 0.0


def test_differences_are_paired_by_problem_and_sample() -> None:
    low = samples({"a": ["1", "1", "gold", "1"], "b": ["gold", "1"]})
    high = samples({"b": ["gold", "gold", "gold"], "a": ["gold", "gold"]}, budget=8)
    [row] = summarise(*tables([*low, *high]))["differences"]
    assert 0.5 <= row.pop("low") <= 0.75 <= row.pop("high") <= 1.0
    assert row == {
        "direction": "forward",
        "budget": 8,
        "against_direction": "forward",
        "against_budget": 0,
        "problems": 2,
        "pairs": 4,
        "difference": 0.75,
    }


def test_every_pair_of_arms_has_a_difference_and_it_is_null_without_anything_in_common() -> None:
    rows = [
        *samples({"a": ["gold"]}),
        *samples({"a": ["1"]}, budget=None),
        *samples({"b": ["gold"]}, "reverse"),
    ]
    found = summarise(*tables(rows))["differences"]
    pairs = [
        (row["direction"], row["budget"], row["against_direction"], row["against_budget"])
        for row in found
    ]
    assert pairs == [
        ("forward", None, "forward", 0),
        ("reverse", 0, "forward", 0),
        ("reverse", 0, "forward", None),
    ]
    assert [(row["difference"], row["pairs"]) for row in found] == [(-1.0, 1), (None, 0), (None, 0)]


def test_many_arms_are_compared_with_the_lowest_budget_of_their_direction_only() -> None:
    arms = [("forward", budget) for budget in range(20)] + [
        ("reverse", budget) for budget in range(3, 13)
    ]
    rows = [row for arm in arms for row in samples({"a": ["gold"]}, *arm)]
    found = summarise(*tables(rows))["differences"]
    assert {(row["against_direction"], row["against_budget"]) for row in found} == {
        ("forward", 0),
        ("reverse", 3),
    }
    assert all(row["direction"] == row["against_direction"] for row in found)
    assert len(found) == 19 + 9


def test_a_summary_does_not_depend_on_the_order_of_rows() -> None:
    rows = samples({problem: ["gold", "1", "2"] for problem in "cab"}) + samples(
        {"b": ["gold"] * 3}, budget=None
    )
    assert summarise(*tables(rows)) == summarise(*tables(rows[::-1]))


def test_grades_of_other_responses_are_left_alone() -> None:
    responses, grades = tables(ROWS)
    assert [arm["direction"] for arm in summarise(responses.slice(0, 1), grades)["arms"]] == [
        "reverse"
    ]


def test_a_summary_survives_json_unchanged() -> None:
    summary = summarise(*tables(ROWS))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_response_without_a_grade_is_an_error() -> None:
    responses, grades = tables(ROWS)
    with pytest.raises(XsampleError, match="1 of 8 responses have no grade"):
        summarise(responses, grades.slice(1))


def test_a_trajectory_that_is_there_twice_is_an_error() -> None:
    with pytest.raises(XsampleError, match="1 trajectories occur more than once"):
        summarise(*tables([*ROWS, ROWS[0]]))


def test_an_unknown_verdict_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="'perhaps'"):
        summarise(*tables([("forward", 0, "a", 0, 10, "stop", 0, 0, "perhaps")]))


def test_a_run_without_responses_has_no_arms() -> None:
    summary = summarise(*tables([]))
    assert summary["arms"] == []
    assert summary["differences"] == []
    assert summary["total"]["responses"] == 0
    assert "acc. %" in rendered(summary)


def test_the_table_shows_each_arm_and_names_the_plain_models() -> None:
    lines = rendered(summarise(*tables(ROWS))).partition("acc.:")[0].splitlines()
    [base] = [line for line in lines if "0 (base)" in line]
    [unlimited] = [line for line in lines if "unlimited" in line]
    [rl] = [line for line in lines if "0 (RL)" in line]
    assert base.split()[3:5] == ["0.0", "-"], "one problem has no interval"
    assert rl.split()[3:5] == ["100.0", "-"]
    for cell in (" 25.0 ", " 0.0-50.0 ", "3.0 (10.0%)", "1.5 (5.0%)", " 30 ", " 25.0 ", " 50.0 "):
        assert cell in unlimited


def test_the_second_table_shows_what_several_samples_and_budgets_add() -> None:
    text = rendered(summarise(*tables(ROWS)))
    [unlimited] = [line for line in text.splitlines() if "unlimited" in line and "+" in line]
    assert unlimited.split()[2:] == ["50.0", "0.0-100.0", "25.0", "0.0-50.0", "+100.0", "-"]
    assert "pass@2" in text and "maj@2" in text and "difference" in text


def test_the_second_table_shows_no_more_than_there_is() -> None:
    one = rendered(summarise(*tables(samples({"a": ["gold"]}))))
    samples_only = rendered(summarise(*tables(samples({"a": ["gold", "1"]}))))
    budgets_only = rendered(
        summarise(*tables(samples({"a": ["gold"]}) + samples({"a": ["1"]}, budget=2)))
    )
    assert "pass@" not in one and "difference" not in one
    assert "pass@2" in samples_only and "difference" not in samples_only
    assert "pass@" not in budgets_only and "-100.0" in budgets_only


def test_answers_that_are_not_correct_for_another_reason_are_named_below_the_table() -> None:
    guess = ("forward", 0, "b", 0, 10, "stop", 0, 0, "guessed")
    text = rendered(summarise(*tables([*ROWS, guess])))
    assert "counted as not correct: 1 guessed, 1 timed out, 1 ungradable" in text
    assert "counted as not correct" not in rendered(summarise(*tables(ROWS[:1])))


@pytest.mark.parametrize("width", [64, 80])
def test_a_narrow_terminal_cuts_off_no_number(width: int) -> None:
    rows = [
        row
        for budget in (0, 1024, None)
        for row in samples({"a": ["gold"] * 32, "b": ["1"] * 32}, "reverse", budget)
    ]
    rows += [
        (*row[:4], 32_768, "length", 1_000, 900, *row[8:])
        for row in samples({"a": ["gold"] * 32}, budget=None)
    ]
    text = rendered(summarise(*tables(rows)), width)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert max(map(len, text.splitlines())) <= width
    wide = rendered(summarise(*tables(rows)))
    assert digits(text) == digits(wide)


def digits(text: str) -> Counter[str]:
    return Counter(char for char in text if char.isdecimal())
