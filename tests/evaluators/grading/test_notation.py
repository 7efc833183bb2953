r"""Notation, numbers and options, as far as they are pure: properties, and what each reads."""

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evaluators.grading.intervals import as_set
from evaluators.grading.notation import ascii_latex
from evaluators.grading.numbers import Rational, are_equal, integer_digits, parse_rational
from evaluators.grading.options import option_letter
from evaluators.grading.units import split_factor, strip_unit

SAID = [
    ("x\u00b2 \u2264 \u00bd", r"x^{2} \le  \frac{1}{2}"),
    ("10\u00b9\u2070", "10^{10}"),
    ("5\u00b2", "5^{2}"),
    ("x\u2081\u2082", "x_{12}"),
    ("2\u00be", r"2\frac{3}{4}"),
    ("\uff15\uff10\uff05", "50%"),
    ("\u0665\u0660", "50"),
    ("\u096b", "5"),
    ("\U0001d7d3\U0001d7ce", "50"),
    ("\u22125", "-5"),
    ("\u20135", "-5"),
    ("3\u20135", "3\u20135"),
    ("\u200b5\u200f\ufeff", "5"),
    ("1\u00a0000", "1 000"),
    ("5\x00\x1b", "5"),
    ("5\n6", "5 6"),
    ("\u221a2", r"\sqrt{2}"),
    ("\u221a(x+1)", r"\sqrt{x+1}"),
    ("\u221b8", r"\sqrt[3]{8}"),
    ("\u03c0\u03bb\u03a9", r"\pi \lambda \Omega "),
    ("x \u2208 \u211d", r"x \in  \mathbb{R} "),
    ("90\u00b0", r"90^\circ "),
    ("\u2013\u221e", r"-\infty "),
    ("\u24b7", "B"),
    ("\u6d6e", "\u6d6e"),
]


@pytest.mark.parametrize(("text", "latex"), SAID)
def test_unicode_is_said_in_ascii_latex(text: str, latex: str) -> None:
    assert ascii_latex(text) == latex


@given(st.text())
@example("\u2013\u2260")
def test_any_text_can_be_read_and_reading_it_again_changes_nothing(text: str) -> None:
    latex = ascii_latex(text)
    assert ascii_latex(latex) == latex


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E)))
def test_ascii_stays_as_it_is(text: str) -> None:
    assert ascii_latex(text) == text


@given(st.integers())
def test_an_integer_is_read_in_every_way_it_is_written(value: int) -> None:
    for text in (f"{value}", f"{value:,}", f"{value:,}".replace(",", "{,}"), f"{value:+}"):
        assert integer_digits(text) == str(value)
    assert parse_rational(str(value)) == Rational(Fraction(value), is_rounded=False)


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6))
def test_a_fraction_is_read_in_every_way_it_is_written(numerator: int, denominator: int) -> None:
    value, sign = Fraction(numerator, denominator), "-" * (numerator < 0)
    whole, rest = divmod(abs(numerator), denominator)
    for text in (
        f"{numerator}/{denominator}",
        rf"\frac{{{numerator}}}{{{denominator}}}",
        rf"{sign}\frac{{{abs(numerator)}}}{{{denominator}}}",
        f"{sign}{whole} {rest}/{denominator}",
        rf"{sign}{whole}\frac{{{rest}}}{{{denominator}}}",
    ):
        assert parse_rational(text) == Rational(value, is_rounded=False), text


@given(st.fractions(-1_000, 1_000, max_denominator=1_000))
def test_a_decimal_is_what_rounds_to_it_in_six_places_and_no_coarser_one_is(
    value: Fraction,
) -> None:
    gold = Rational(value, is_rounded=False)
    exact = parse_rational(f"{float(value):.12f}")
    assert exact is not None
    assert are_equal(gold, exact)
    coarse = parse_rational(f"{float(value) + 0.001:.3f}")
    assert coarse is not None
    assert not are_equal(gold, coarse)


def test_a_share_of_nothing_and_an_exponent_beyond_reason_are_no_numbers() -> None:
    assert (
        parse_rational("1/0")
        is parse_rational(r"\frac10")
        is parse_rational(r"1 \cdot 10^{9999}")
        is parse_rational("1" * 5_000)
        is None
    )


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("5 apples", "5"),
        ("5 cm^2", "5"),
        (r"5 \text{ cm}^{2}", "5"),
        (r"9.8 \mathrm{m/s^2}", "9.8"),
        (r"5 \frac{\text{m}}{\text{s}}", "5"),
        ("$5", "5"),
        ("5x", "5x"),
        ("5 or more", "5 or more"),
        ("2 pm", "2 pm"),
        ("x cm", "x cm"),
        (r"x = \text{east}", r"x = \text{east}"),
        (r"x_\text{max}", r"x_\text{max}"),
    ],
)
def test_a_unit_is_what_stands_behind_a_number_and_is_no_number_itself(
    text: str, stem: str
) -> None:
    assert strip_unit(text, is_number=True) == stem


def test_plain_words_are_units_only_where_a_number_is_expected() -> None:
    assert strip_unit("5 cm", is_number=False) == "5 cm"
    assert strip_unit(r"5 \text{ cm}", is_number=False) == "5"


def test_a_sign_with_a_worth_is_told_from_the_number() -> None:
    assert [
        factor and factor % "5" for _, factor in map(split_factor, ("5%", r"5^\circ", "5"))
    ] == [
        r"\frac{5}{100}",
        r"\frac{(5)\pi}{180}",
        None,
    ]


@pytest.mark.parametrize(
    ("text", "described"),
    [
        ("x < 1", r"(-\infty, 1)"),
        (r"x \ge -\frac{1}{2}", r"[-\frac{1}{2}, \infty)"),
        (r"2 > x \ge 1", "[1, 2)"),
        (r"x < 1 \text{ or } x > 2", r"(-\infty, 1) \cup (2, \infty)"),
        (r"x < 1 \text{ or } y > 2", None),
        ("1 < x > 2", None),
        ("x = 1", None),
        ("x < y", None),
        ("5", None),
    ],
)
def test_an_inequality_in_one_variable_describes_a_set(text: str, described: str | None) -> None:
    assert as_set(text) == described


@given(st.sampled_from("ABCDEFGHIJ"), st.sampled_from("ABCDEFGHIJ"))
def test_two_options_are_none_and_one_is_itself_however_it_is_marked(one: str, other: str) -> None:
    for text in (
        one,
        one.lower(),
        f"({one})",
        f"{one})",
        f"{one}.",
        rf"\textbf{{({one})}}",
        f"Option {one}",
        f"**{one}**",
    ):
        assert option_letter(text) == one
    for text in (
        "{} or {}",
        "{}, {}",
        "({}) and ({})",
        "{}/{}",
        "({}) ({})",
        "{}) 5, {}) 6",
        "{} and {}",
    ):
        both = text.format(one, other)
        assert one == other or option_letter(both) is None, both
