"""Which answers a majority vote takes for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.scores.answers import canonical_text


@pytest.mark.parametrize(
    "spellings",
    [
        ["42", " 42 ", "$42$", "042", r"\(42\)", "42.", r"\text{42}", "42.0"],
        ["1000", "1,000", "1{,}000", "$1000$"],
        ["1/2", "0.5", r"\frac{1}{2}", r"$\dfrac12$", r"\tfrac{1}{2}", ".50"],
        ["-3", "\N{MINUS SIGN}3", "$-3$"],
        ["B", "b", "(B)", "**B**", r"\text{B}"],
        [r"2\sqrt{3}", r"$2 \sqrt{3}$", r"2\sqrt{3}."],
    ],
    ids=lambda spellings: str(spellings[0]),
)
def test_spellings_of_one_answer_are_one(spellings: list[str]) -> None:
    assert len({canonical_text(answer) for answer in spellings}) == 1


@pytest.mark.parametrize(
    ("answer", "other"),
    [("12", "1,2"), ("2x", "x+x"), ("0.33", "1/3"), ("-1", "1"), ("A", "AB"), ("", "0")],
)
def test_answers_that_are_not_written_as_equals_stay_apart(answer: str, other: str) -> None:
    assert canonical_text(answer) != canonical_text(other)


def test_in_multiple_choice_an_option_is_one_vote_however_it_is_named() -> None:
    spellings = ["B", "(B)", "Option B", "B) neon", r"\text{B}", "b"]
    assert {canonical_text(answer, "choice") for answer in spellings} == {"B"}
    assert canonical_text("A or B", "choice") != canonical_text("A", "choice")


@given(st.text(max_size=60))
def test_every_text_has_a_canonical_text(answer: str) -> None:
    assert canonical_text(f" {answer} ") == canonical_text(answer)


@pytest.mark.parametrize(
    "answer", ["9" * 100_000, "{" * 10_000, r"\frac" * 50_000, "1e999", "10^{10^{10}}"]
)
def test_a_hostile_answer_is_only_a_text(answer: str) -> None:
    assert canonical_text(answer) == canonical_text(answer)
