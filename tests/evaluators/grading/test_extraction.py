r"""Traps for answer extraction: what a response says, and the answer it commits to, or what could
be taken for one.
"""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reading import BROKEN
from evaluators.grading.extraction import Extraction, extract, last_boxed
from evaluators.grading.guess import GuessKind
from tests.support.work import count_lines

BOXED = [
    # the plain case, and what stands around it
    (r"so \boxed{50}.", "50"),
    (r"$\boxed{50}$", "50"),
    (r"\[ \boxed{50} \]", "50"),
    (r"**\boxed{50}**", "50"),
    (r"\boxed{ 50 }", "50"),
    (r"\boxed {50}", "50"),
    (r"\\boxed{50}", "50"),
    (r"\\\boxed{50}", "50"),
    (r"\\\\\\\boxed{50}", "50"),
    ("\\boxed\n{50}", "50"),
    ("\\boxed{\n50\n}", "50"),
    # braces inside
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\sqrt{\frac{1}{x^{2}}}}", r"\sqrt{\frac{1}{x^{2}}}"),
    (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
    (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
    (r"\boxed{a \\} and \boxed{b", r"a \\"),
    (r"\boxed{\text{it is } 5}", r"\text{it is } 5"),
    # several
    (r"\boxed{1} no, \boxed{2}", "2"),
    (r"\boxed{1}\boxed{2}", "2"),
    (r"\boxed{\boxed{5}}", "5"),
    (r"\boxed{x = \boxed{5}}", "5"),
    (r"\boxed{5} and then \boxed{}", "5"),
    (r"\boxed{5} \boxed{ }", "5"),
    # unbalanced
    (r"\boxed{4} and \boxed{5", "4"),
    (r"\boxed{4} and \boxed{\frac{5}{", "4"),
    (r"} } \boxed{5}", "5"),
    (r"{ \boxed{5}", "5"),
    (r"\boxed{\frac{\boxed{5}", "5"),
    # a box beats a line, wherever they stand
    ("Answer: 4\nthat is \\boxed{5}", "5"),
    ("\\boxed{5}\nAnswer: 4", "5"),
    # thoughts are no answers
    (r"<think>\boxed{1}</think>\boxed{2}", "2"),
    (r"<think>\boxed{1}</think> hm </think> \boxed{2}", "2"),
    (r"<think>\boxed{1}", "1"),
]

ANSWER_LINE = [
    ("Answer: 50", "50"),
    ("so\nAnswer: 50\n", "50"),
    ("answer : 50", "50"),
    ("ANSWER: 50.", "50"),
    ("**Answer:** 50", "50"),
    ("**Answer: 50**", "50"),
    ("**Answer**: **50**.", "50"),
    ("### Final Answer: 50", "50"),
    ("The final answer: 50", "50"),
    ("> Answer: $\\frac{1}{2}$.", r"$\frac{1}{2}$"),
    ("Answer: 3.5", "3.5"),
    ("Answer: x_1", "x_1"),
    ("Answer: 4\nno\nAnswer: 5", "5"),
    ("Answer: 4\nAnswer:", "4"),
    ("Answer:5", "5"),
    ("Answer\uff1a5", "5"),
    ("Answer: 5\r\nbye", "5"),
    ("<think>Answer: 4</think>\nAnswer: 5", "5"),
    ("\\boxed{}\nAnswer: 5", "5"),
    ("\\boxed{4\nAnswer: 5", "5"),
    ("so 50. Answer: 50", "50"),
    ("so 50! **Final answer:** 50.", "50"),
    ("Is it 4? Answer: 4. Answer: 5", "5"),
    ("It is 5. Answer: 5. Answer:", "5"),
    ("Answer: $\\boxed{}$\nAnswer: 5", "5"),
    ("Answer: 5\nAnswer: \\boxed{6", "5"),
]

NOTHING = [
    "",
    " \n",
    "The answer is clearly D",
    "the answer is not far",
    r"\boxed{}",
    r"\boxed{50",
    r"\boxed50",
    r"\fbox{50}",
    "{50}",
    "Answer:",
    "Answer: **",
    "Answer: $$",
    r"Answer: \boxed{}",
    r"Answer: \boxed{\frac{1}{2}",
    "We must write Answer: followed by a number",
    "The answer line must say Answer: followed by the number. It follows that",
    "The answers: four and five",
    r"<think>\boxed{1}</think> I give up",
    "<think>Answer: 1</think>",
    "put your final answer within \\boxed{}.",
    "we square both sides, so that x^2",
    "and hence a_1",
    "which is equation (5)",
    r"thus \frac{1}{2}",
    "The answer is 50. But no, I do not trust it." + " I think again." * 30,
]

NUMBERS = [
    ("so it is 49, or 50", "50", "last_number"),
    ("= 50", "50", "last_number"),
    ("so x = -5.", "-5", "last_number"),
    ("**50**", "50", "last_number"),
    ("$50$", "50", "last_number"),
    (r"\(50\)", "50", "last_number"),
    ("1,000.5", "1,000.5", "last_number"),
    ("about 50%", "50%", "last_number"),
    ("it is 1/2.", "1/2", "last_number"),
    (r"\boxed 50", "50", "last_number"),
    ("Answer:\n50", "50", "last_number"),
    ("the answer is 50", "50", "sentence"),
    ("The final answer is therefore $50$. Done.", "50", "sentence"),
    ("the answer is **50** apples", "50", "sentence"),
    (r"Hence the answer is \boxed{50", "50", "sentence"),
    ("The answer is 4. No, the answer is 5, I think.", "5", "sentence"),
    ("<think>the answer is 4</think> the answer is 5", "5", "sentence"),
]

LETTERS = [
    ("The answer is definitely (B)", "B", "sentence"),
    ("The answer is definitely (B). Done.", "B", "sentence"),
    ("The answer is clearly D", "D", "sentence"),
    ("The correct option is **C**, as shown.", "C", "sentence"),
    ("the answer is (A) a proton", "A", "sentence"),
    ("**D**", "D", "last_letter"),
    ("so I choose B.", "B", "last_letter"),
    ("(C)", "C", "last_letter"),
]
NO_LETTERS = [
    "The answer is clearly",
    "The answer is Clear",
    "Consider",
    "Consider the answer: Consider",
    "The answer is A proton",
    "the answer is not B, surely",
    "it weighs 5 kg",
    "DNA",
    "x-A",
    "so it is 50",
]


@pytest.mark.parametrize(("text", "answer"), BOXED)
def test_the_last_balanced_box_is_the_answer(text: str, answer: str) -> None:
    assert extract(text) == Extraction(answer, None, "boxed")


@pytest.mark.parametrize(("text", "answer"), ANSWER_LINE)
def test_without_a_box_the_last_answer_line_is_the_answer(text: str, answer: str) -> None:
    assert extract(text) == Extraction(answer, None, "answer_line")


@pytest.mark.parametrize("text", NOTHING)
def test_what_says_no_number_is_neither_an_answer_nor_a_guess(text: str) -> None:
    assert extract(text, "number") == Extraction(None, None, None)


@pytest.mark.parametrize(("text", "guess", "method"), NUMBERS)
def test_a_number_that_nothing_commits_to_is_a_guess_and_never_an_answer(
    text: str, guess: str, method: str
) -> None:
    assert extract(text, "number") == Extraction(None, guess, method)


@pytest.mark.parametrize(("text", "guess", "method"), LETTERS)
def test_a_letter_that_nothing_commits_to_is_a_guess_and_never_an_answer(
    text: str, guess: str, method: str
) -> None:
    assert extract(text, "letter") == Extraction(None, guess, method)


@pytest.mark.parametrize("text", NO_LETTERS)
def test_a_letter_of_a_word_an_article_or_a_denied_one_is_no_guess(text: str) -> None:
    assert extract(text, "letter") == Extraction(None, None, None)


def test_a_guess_at_words_is_the_rest_of_the_sentence() -> None:
    assert extract("So the answer is the Nile. I am sure.", "words") == Extraction(
        None, "the Nile", "sentence"
    )
    assert extract("It is the Nile", "words") == Extraction(None, None, None)


@settings(deadline=None)
@given(
    st.text(alphabet="ab{}\\", max_size=12).filter(lambda s: _is_balanced(s) and s.strip()),
    st.text("ab \n"),
)
def test_whatever_is_boxed_comes_out_as_it_is(content: str, around: str) -> None:
    assert last_boxed(f"{around}\\boxed{{{content}}}{around}") == content.strip()


PIECES = st.sampled_from(
    ["\\boxed{", "{", "}", "\\", "5", "B", "\n", "Answer:", "The answer is ", "</think>", " ", "."]
)
KINDS: tuple[GuessKind, ...] = ("number", "letter", "words")


@settings(deadline=None)
@given(st.lists(PIECES).map("".join), st.sampled_from(KINDS))
def test_no_text_breaks_extraction_and_what_is_found_is_in_the_text(
    text: str, kind: GuessKind
) -> None:
    found = extract(text, kind)
    said = found.answer or found.guess
    assert found.answer is None or found.guess is None
    assert (said is None) == (found.method is None)
    assert said is None or said in text


@pytest.mark.parametrize("piece", BROKEN)
def test_work_is_linear_in_the_length_of_a_broken_response(piece: str) -> None:
    """What regular expressions add to it, benchmarks/reading measures."""
    once, twice = (count_lines(partial(extract, piece * n, "number")) for n in (2_000, 4_000))
    assert twice <= 2.1 * once + 100
    extract(piece * 100_000, "number")


def _is_balanced(content: str) -> bool:
    depth, escaped = 0, False
    for char in content:
        depth += 0 if escaped else (char == "{") - (char == "}")
        escaped = char == "\\" and not escaped
        if depth < 0:
            return False
    return depth == 0 and not escaped
