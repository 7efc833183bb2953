"""The rules of the intervention's settings: budgets, thresholds, windows, matches and
extrapolation.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from math import floor
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config.switching import (
    check_match,
    check_window,
    parse_budget,
    resolve_extrapolation,
    resolve_threshold,
    resolve_window,
)
from engine.sampling.rule import CriterionName, Rule

CRITERIA: tuple[CriterionName, ...] = get_args(CriterionName)
WITHOUT_THRESHOLD: tuple[CriterionName, ...] = ("argmax", "always", "never")
WITHOUT_DEFAULT: tuple[CriterionName, ...] = (
    "kl",
    "reverse-kl",
    "entropy-base",
    "entropy-rl",
    "random",
)
any_budgets = st.lists(st.none() | st.integers(0, 2**31 - 1), min_size=1, max_size=8)
rising_budgets = st.tuples(st.sets(st.integers(0, 2**31 - 1), max_size=7), st.booleans()).map(
    lambda drawn: sorted(drawn[0]) + [None] * (drawn[1] or not drawn[0])
)
tokens = st.integers(0, 400).map(str)
shares = st.decimals(0, 100, places=2).map(lambda share: f"{share}%")
edges = st.just("") | tokens | shares


def said(text: str, *parts: str) -> bool:
    """One line that holds all these parts."""
    return "\n" not in text and all(part in text for part in parts)


# Budgets


def as_text(budgets: list[int | None]) -> str:
    return ",".join("unlimited" if budget is None else str(budget) for budget in budgets)


@given(rising_budgets)
def test_a_budget_as_text_as_a_list_and_parsed_again_is_the_same(budgets: list[int | None]) -> None:
    assert (
        parse_budget(as_text(budgets))
        == parse_budget(budgets)
        == parse_budget(parse_budget(budgets))
    )
    assert parse_budget(budgets) == tuple(budgets)


@given(any_budgets)
def test_a_list_that_does_not_rise_is_refused_with_the_list_to_give(
    budgets: list[int | None],
) -> None:
    numbers = [2**31 if budget is None else budget for budget in budgets]
    if all(a < b for a, b in pairwise(numbers)):
        assert parse_budget(budgets) == tuple(budgets)
        return
    with pytest.raises(ValueError, match="rise strictly") as error:
        parse_budget(budgets)
    advised = str(error.value).rpartition("give ")[2]
    assert set(parse_budget(advised)) == set(budgets)


@pytest.mark.parametrize(
    "budget", ["", "-1", "0,-1", "8,", "1.5", "all", "²", "2147483648", [], [1.5], True, {}]
)
def test_what_is_no_budget_is_refused(budget: object) -> None:
    with pytest.raises(ValueError, match="budget"):
        parse_budget(budget)


# Thresholds


def test_js_and_dlogp_have_a_default() -> None:
    assert (resolve_threshold("js", None, False), resolve_threshold("dlogp", None, False)) == (
        0.1,
        -0.3,
    )


@pytest.mark.parametrize("criterion", WITHOUT_DEFAULT)
def test_the_others_must_be_given_one(criterion: CriterionName) -> None:
    with pytest.raises(ValueError, match=f"criterion is '{criterion}' without threshold") as error:
        resolve_threshold(criterion, None, False)
    assert said(str(error.value), "give ")


@pytest.mark.parametrize("criterion", WITHOUT_THRESHOLD)
def test_what_compares_nothing_takes_none(criterion: CriterionName) -> None:
    assert resolve_threshold(criterion, None, False) == 0
    with pytest.raises(ValueError, match=r"threshold is 0\.1") as error:
        resolve_threshold(criterion, 0.1, False)
    assert said(str(error.value), repr(criterion), "leave threshold out")


@given(st.sampled_from(CRITERIA), st.floats(-5, 5))
def test_a_threshold_that_is_given_is_kept_or_refused_by_name_and_value(
    criterion: CriterionName, x: float
) -> None:
    if criterion == "dlogp":
        legal = True
    elif criterion == "random":
        legal = 0 < x <= 1
    elif criterion == "js":
        legal = 0 <= x <= 0.6931471805599453
    else:
        legal = criterion not in WITHOUT_THRESHOLD and x >= 0
    if legal:
        assert resolve_threshold(criterion, x, False) == x
    else:
        with pytest.raises(ValueError, match=re.escape(f"threshold is {x} ")) as error:
            resolve_threshold(criterion, x, False)
        assert said(str(error.value), criterion)


def test_a_match_takes_the_place_of_the_rate() -> None:
    assert resolve_threshold("random", None, True) == 0
    with pytest.raises(ValueError, match=r"threshold is 0\.2 but match .*leave threshold out"):
        resolve_threshold("random", 0.2, True)


# Matches


def test_only_random_positions_match_a_run() -> None:
    check_match(Path("runs/a"), "random", True)
    check_match(None, "kl", True)
    with pytest.raises(
        ValueError, match="match is 'runs/a' but criterion is 'kl': give criterion random"
    ):
        check_match(Path("runs/a"), "kl", True)


def test_a_match_without_any_criterion_says_that_none_was_given() -> None:
    with pytest.raises(ValueError, match="match is 'runs/a' but no criterion is given"):
        check_match(Path("runs/a"), "js", False)


# Windows


@pytest.mark.parametrize(
    ("window", "positions"),
    [
        (None, (0, 200)),
        (":", (0, 200)),
        ("32:", (32, 200)),
        (":25%", (0, 50)),
        ("75%:", (150, 200)),
        ("32:25%", (32, 50)),
        ("10%:40", (20, 40)),
        ("12.5%:100%", (25, 200)),
        ("0:200", (0, 200)),
        ("199:", (199, 200)),
    ],
)
def test_a_window_is_a_range_of_positions(window: str | None, positions: tuple[int, int]) -> None:
    assert window is None or check_window(window) == window
    assert resolve_window(window, 200) == positions


def test_a_share_is_rounded_down_and_never_by_a_rounding_error() -> None:
    assert resolve_window(":29%", 100) == (0, 29)  # in floats 0.29 * 100 is less than 29
    assert resolve_window("0.1%:99.9%", 999) == (0, 998)


@given(edges, edges, st.integers(1, 300))
def test_any_window_is_resolved_as_it_says_or_refused_with_the_way_out(
    start: str, stop: str, max_tokens: int
) -> None:
    def position(edge: str, default: int) -> int:
        number = Fraction(edge.rstrip("%") or default)
        return floor(number * max_tokens / 100) if edge.endswith("%") else int(number)

    window, expected = f"{start}:{stop}", (position(start, 0), position(stop, max_tokens))
    if 0 <= expected[0] < expected[1] <= max_tokens:
        assert check_window(window) == window
        assert resolve_window(window, max_tokens) == expected
    else:
        with pytest.raises(
            ValueError, match=f"window is '{window}' and max_tokens {max_tokens}: "
        ) as error:
            resolve_window(window, max_tokens)
        assert said(str(error.value), "; ")


@given(edges, edges)
def test_what_holds_no_position_under_any_cap_is_refused_before_the_cap_is_known(
    start: str, stop: str
) -> None:
    def opens(max_tokens: int) -> bool:
        try:
            return bool(resolve_window(f"{start}:{stop}", max_tokens))
        except ValueError:
            return False

    try:
        check_window(f"{start}:{stop}")
    except ValueError:
        assert not any(map(opens, (1, 2, 3, 100, 400, 401, 10_000, 10**8)))


@pytest.mark.parametrize(
    ("window", "says"),
    [
        ("32", "one colon"),
        ("", "one colon"),
        ("1:2:3", "one colon"),
        ("-5:", "'-5'"),
        (":-5%", "'-5%'"),
        ("a:", "'a'"),
        ("1.5:", "'1.5'"),
        (":.5%", "'.5%'"),
        (" 32:", "' 32'"),
        ("٣:", "'٣'"),
        ("1e3:", "'1e3'"),
        (":%", "'%'"),
        (":101%", "at most 100%"),
        ("100.5%:", "at most 100%"),
        ("9" * 5000 + ":", "is no position"),
        (":0", "no position"),
        (":0%", "no position"),
        ("40:32", "no position"),
        ("32:32", "no position"),
        ("50%:25%", "no position"),
        ("100%:", "no position"),
        (1960, "in quotes"),
        (["1", "2"], "in quotes"),
    ],
)
def test_what_is_no_window_is_refused(window: object, says: str) -> None:
    with pytest.raises(ValueError, match="give ") as error:
        check_window(window)
    assert said(str(error.value), says)


# Extrapolation


@pytest.mark.parametrize("to", [None, "base", "rl"])
def test_forward_goes_to_rl_unless_it_is_told_otherwise(to: str | None) -> None:
    assert resolve_extrapolation(0.1, to, "js", "forward") == (to or "rl")  # type: ignore[arg-type]


@pytest.mark.parametrize("direction", ["reverse", "both"])
def test_in_reverse_it_must_be_said_which_way(direction: str) -> None:
    assert resolve_extrapolation(0.1, "base", "js", direction) == "base"
    with pytest.raises(
        ValueError, match=r"extrapolate is 0\.1 and direction .* give extrapolate_to base or rl"
    ) as error:
        resolve_extrapolation(0.1, None, "js", direction)
    assert said(str(error.value), repr(direction))


def test_a_way_without_extrapolation_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"extrapolate_to is 'rl' but extrapolate is 0\.0.*give extrapolate above 0",
    ):
        resolve_extrapolation(0.0, "rl", "js", "forward")


def test_never_extrapolates_nothing() -> None:
    with pytest.raises(ValueError, match=r"extrapolate is 0\.1 but criterion is 'never'"):
        resolve_extrapolation(0.1, None, "never", "forward")


def test_without_extrapolation_nothing_is_asked() -> None:
    assert {
        resolve_extrapolation(0.0, None, c, d)
        for c in CRITERIA
        for d in ("forward", "reverse", "both")
    } == {"rl"}


def test_the_rule_by_default_is_the_papers() -> None:
    assert (Rule().criterion, Rule().threshold, Rule().start, Rule().eos, Rule().extrapolate) == (
        "js",
        0.1,
        0,
        "keep",
        0,
    )
