r"""Traps for answer extraction: what a response says, and the answer it commits to (None: it commits to none)."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.extraction import Extraction, extract, last_boxed

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
]

NOTHING = [
    "",
    " \n",
    "The answer is clearly D",
    "the answer is 50",
    "so it is 49, or 50",
    "= 50",
    r"\boxed{}",
    r"\boxed{50",
    r"\boxed 50",
    r"\boxed50",
    "boxed{50}",
    r"\fbox{50}",
    "{50}",
    "Answer:",
    "Answer: **",
    "Answer:\n50",
    "We must write Answer: followed by a number",
    "The answers: 4 and 5",
    r"<think>\boxed{1}</think> I give up",
    "<think>Answer: 1</think>",
    "put your final answer within \\boxed{}.",
]


@pytest.mark.parametrize(("text", "answer"), BOXED)
def test_the_last_balanced_box_is_the_answer(text: str, answer: str) -> None:
    assert extract(text) == Extraction(answer, "boxed")


@pytest.mark.parametrize(("text", "answer"), ANSWER_LINE)
def test_without_a_box_the_last_answer_line_is_the_answer(text: str, answer: str) -> None:
    assert extract(text) == Extraction(answer, "answer_line")


@pytest.mark.parametrize("text", NOTHING)
def test_a_guess_is_never_an_answer(text: str) -> None:
    assert extract(text) == Extraction(None, None)


@settings(deadline=None)
@given(st.text(alphabet="ab{}\\", max_size=12).filter(lambda s: _is_balanced(s) and s.strip()), st.text("ab \n"))
def test_whatever_is_boxed_comes_out_as_it_is(content: str, around: str) -> None:
    assert last_boxed(f"{around}\\boxed{{{content}}}{around}") == content.strip()


PIECES = st.sampled_from(["\\boxed{", "{", "}", "\\", "5", "\n", "Answer:", "</think>", " "])


@settings(deadline=None)
@given(st.lists(PIECES).map("".join))
def test_no_text_breaks_extraction_and_answers_are_never_empty(text: str) -> None:
    found = extract(text)
    assert (found.answer is None) == (found.method is None)
    assert found.answer is None or (found.answer and found.answer in text)


@pytest.mark.parametrize("piece", ["\\boxed{", "{", "\\", "Answer:", "\n", " ", "*", "</think>", "answer"])
def test_time_is_linear_in_the_length_of_a_broken_response(piece: str) -> None:
    start = time.process_time()
    extract(piece * 100_000)
    assert time.process_time() - start < 1.0


def _is_balanced(content: str) -> bool:
    depth, escaped = 0, False
    for char in content:
        depth += 0 if escaped else (char == "{") - (char == "}")
        escaped = char == "\\" and not escaped
        if depth < 0:
            return False
    return depth == 0 and not escaped
