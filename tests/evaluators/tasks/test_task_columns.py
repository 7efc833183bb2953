r"""Which column is which, what a cell says, and gold answers out of boxes, solutions and `####`
lines.
"""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import TaskError
from evaluators.tasks.sources.columns import (
    ANSWER,
    QUESTION,
    answer_text,
    as_text,
    cell,
    find,
    paths,
    question_text,
)
from evaluators.tasks.sources.distinct import (
    MAX_ID_CHARS,
    Entry,
    deduplicate,
    identify,
    question_hash,
)
from evaluators.tasks.sources.gold import aime_integer, gold_answer, gold_of_solution
from evaluators.tasks.sources.rows import Row


def row(**cells: Any) -> Row:
    return Row("a.csv, line 2", cells)


def entry(number: int, id: str | None, question: str, answer: str = "1") -> Entry:
    return Entry(f"a.csv, line {number}", id, question, answer)


@pytest.mark.parametrize(
    ("columns", "question", "answer"),
    [
        (("id", "problem", "solution", "answer", "url"), "problem", "answer"),
        (("ID", "Problem", "Solution", "Answer"), "Problem", "Answer"),
        (("problem", "solution"), "problem", "solution"),
        (("QUESTION", "Expected Answer"), "QUESTION", "Expected Answer"),
        (("prompt", "ground-truth"), "prompt", "ground-truth"),
        (("Question ", " final_answer"), "Question ", " final_answer"),
    ],
)
def test_usual_names_are_found_without_regard_to_case_and_separator(
    columns: tuple[str, ...], question: str, answer: str
) -> None:
    there = [(name,) for name in columns]
    assert find(there, QUESTION, None, "question", "a.csv") == (question,)
    assert find(there, ANSWER, None, "answer", "a.csv") == (answer,)


def test_a_given_column_goes_before_the_usual_ones_and_the_exact_spelling_before_another() -> None:
    there = [("answer",), ("Mine",), ("mine",), ("a", "b"), ("a.c",)]
    assert find(there, ANSWER, "mine", "answer", "a.csv") == ("mine",)
    assert find(there, ANSWER, "A.B", "answer", "a.csv") == ("a", "b")
    assert find(there, ANSWER, "a.c", "answer", "a.csv") == ("a.c",)


def test_a_given_column_that_is_not_there_is_an_error_that_lists_those_that_are() -> None:
    with pytest.raises(
        TaskError, match=r"^answer_column is 'x': a\.csv has no such column; it has 'q', 's\.t'$"
    ):
        find([("q",), ("s", "t")], ANSWER, "x", "answer", "a.csv")


def test_two_columns_that_fit_are_an_error() -> None:
    with pytest.raises(
        TaskError,
        match="'Answer', 'answer' could all be the answer: say which with --answer-column",
    ):
        find([("Answer",), ("answer",)], ANSWER, None, "answer", "a.csv")


def test_paths_lead_into_structs_and_into_structs_written_as_json_where_anything_is_there() -> None:
    rows = [
        row(a={"b": 1, "c": None}, d='{"e": {"f": 2}}', g=None, h="{not json}"),
        row(i=[{"j": 1}]),
    ]
    assert paths(rows) == [
        ("a",),
        ("a", "b"),
        ("d",),
        ("d", "e"),
        ("d", "e", "f"),
        ("g",),
        ("h",),
        ("i",),
    ]
    assert [
        cell(rows[0], path) for path in (("a", "b"), ("d", "e", "f"), ("g",), ("x",), ("h", "y"))
    ] == [
        1,
        2,
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("073", "073"),
        (" a\r\nb\r ", "a\nb"),
        (73, "73"),
        (73.0, "73"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (1e300, "1e+300"),
        (float("nan"), None),
        (float("inf"), "inf"),
        (None, None),
        ("", None),
        (" \n", None),
        (True, "True"),
        (Decimal("73.00"), "73"),
        (Decimal("1E+2"), "100"),
        (["x"], "x"),
        ([None], None),
        ("NA", "NA"),
        ("None", "None"),
    ],
)
def test_a_cell_is_its_text(value: object, text: str | None) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize("value", [{"a": 1}, [], ["a", "b"], b"x", [["x"]]])
def test_what_is_neither_text_nor_number_has_none(value: object) -> None:
    with pytest.raises(TypeError, match="not text or a number"):
        as_text(value)


def test_half_a_surrogate_pair_is_no_text() -> None:
    with pytest.raises(UnicodeEncodeError):
        as_text("\ud800")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("What is 1+1?", "What is 1+1?"),
        ([{"role": "user", "content": "1+1?"}], "1+1?"),
        ('[{"role": "user", "content": "1+1?"}]', "1+1?"),
        ([{"role": "system", "content": "1+1?"}], None),
        ("[1, 2] is an interval?", "[1, 2] is an interval?"),
        ("[1, 2]", "[1, 2]"),
        ('{"a": 1}', '{"a": 1}'),
    ],
)
def test_a_question_is_text_or_the_one_message_of_a_chat(value: object, text: str) -> None:
    assert question_text(value) == text


def test_a_chat_of_several_messages_is_not_asked_in_part() -> None:
    with pytest.raises(TypeError, match="a chat of 2 messages"):
        question_text(
            [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "1+1?"}]
        )


@pytest.mark.parametrize(
    ("value", "text"),
    [("34", "34"), (["34"], "34"), ('["34"]', "34"), ("[1, 2]", "[1, 2]"), ("[5]", "[5]")],
)
def test_an_answer_may_be_the_only_item_of_a_list(value: object, text: str) -> None:
    assert answer_text(value) == text


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("72", "72"),
        ("073", "073"),
        (r"\boxed{73}", "73"),
        (r" $\boxed{ 73 }$ ", "73"),
        (r"$\frac12$", r"$\frac12$"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {5}", "5"),
        ("work\nmore work\n#### 1,234", "1,234"),
        ("#### 7", "7"),
        ("#### not last\n8", "#### not last\n8"),
        (r"\boxed{1} or \boxed{2}", r"\boxed{1} or \boxed{2}"),
        (r"\boxed{1", r"\boxed{1"),
        (r"\{1, 2\}", r"\{1, 2\}"),
        ("", ""),
    ],
)
def test_a_gold_answer_is_taken_out_of_its_box_or_its_last_line(text: str, gold: str) -> None:
    assert gold_answer(text) == gold


@pytest.mark.parametrize(
    ("solution", "gold"),
    [
        (r"\boxed{204}", "204"), (r"So $x=\boxed{1}$, thus $\boxed{\frac{3}{4}}$.", r"\frac{3}{4}"),
        ("easy\n#### 5", "5"), ("the answer is 5", None), (r"\boxed{5", None),
    ],
)  # fmt: skip
def test_of_a_solution_the_last_box_is_the_gold_answer(solution: str, gold: str | None) -> None:
    assert gold_of_solution(solution) == gold


@pytest.mark.parametrize(
    ("answer", "integer"),
    [
        ("73", "73"),
        ("073", "73"),
        ("000", "0"),
        ("0", "0"),
        ("999", "999"),
        ("00999", "999"),
        ("$73$", "73"),
        (r"$073^\circ$", "73"),
        (r"73^{\circ}", "73"),
        ("73°", "73"),
        (r"\(73\)", "73"),
        ("73.0", "73"),
        (" 73 ", "73"),
        ("1000", None),
        ("-1", None),
        ("7.5", None),
        ("", None),
        ("x", None),
        ("7 3", None),
        ("٧٣", None),
        ("1e2", None),
        ("73 74", None),
        ("$", None),
    ],
)
def test_an_answer_of_aime_is_an_integer_from_0_to_999(answer: str, integer: str | None) -> None:
    assert aime_integer(answer) == integer


def test_questions_that_differ_in_white_space_alone_are_one_and_the_first_is_kept() -> None:
    kept, notes = deduplicate(
        [entry(2, "a", "1 + 1?"), entry(3, "b", "2?"), entry(4, "c", " 1  +\n1?")]
    )
    assert [item.id for item in kept] == ["a", "b"]
    assert notes == ["3 rows hold 2 problems: repeated ones are taken once"]


def test_a_repeated_question_may_write_its_gold_answer_with_leading_zeros() -> None:
    assert len(deduplicate([entry(2, "a", "1?", "073"), entry(3, "b", "1?", "73")])[0]) == 1


def test_a_question_with_two_gold_answers_is_an_error_that_names_both_rows() -> None:
    with pytest.raises(
        TaskError, match=r"^a\.csv, line 4 repeats the question of a\.csv, line 2 with another gold"
    ):
        deduplicate([entry(2, "a", "1?", "1"), entry(3, "b", "2?", "2"), entry(4, "c", "1?", "2")])


def test_a_hash_of_the_question_is_the_id_where_there_is_none() -> None:
    kept, notes = identify([entry(2, None, "1 + 1?"), entry(3, None, "2?")], None)
    assert [item.id for item in kept] == [
        question_hash("1 + 1?"),
        question_hash("2?"),
    ] and notes == []
    assert question_hash("1 + 1?") == question_hash("1\n+  1? ") == "c97c3a9c9b99"


BAD_IDS = [
    "",
    "a\nb",
    "a\x1b[31m",
    "a\u202eb",
    "a\u2028b",
    "a\0b",
    "x" * (MAX_ID_CHARS + 1),
    "twice",
]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_ids_of_no_use_are_replaced_and_that_is_said_or_refused_if_the_user_named_them(
    bad: str,
) -> None:
    found = [entry(2, "twice", "1?"), entry(3, bad or None, "2?")]
    kept, (note,) = identify(found, None)
    assert [item.id for item in kept] == [question_hash("1?"), question_hash("2?")]
    assert (
        note.startswith("problems are called by a hash of their question, as ")
        and note.isprintable()
    )
    with pytest.raises(TaskError, match=r"^id_column is 'mine': .*a\.csv, line 3") as error:
        identify(found, "mine")
    assert str(error.value).isprintable()


@given(st.lists(st.tuples(st.text(max_size=3), st.sampled_from("12")), max_size=6), st.randoms())
def test_what_is_one_problem_does_not_depend_on_the_order_of_the_rows(
    cells: list[tuple[str, str]], random: Any
) -> None:
    def ids(found: list[Entry]) -> set[tuple[str | None, str]] | None:
        try:
            return {(item.id, item.answer) for item in identify(deduplicate(found)[0], None)[0]}
        except TaskError:
            return None

    found = [entry(number, None, *texts) for number, texts in enumerate(cells)]
    shuffled = random.sample(found, len(found))
    assert ids(found) == ids(shuffled)


@given(
    st.text()
    | st.floats()
    | st.integers()
    | st.lists(st.text())
    | st.dictionaries(st.text(), st.text())
)
def test_any_cell_gives_text_or_an_error_that_is_known(value: object) -> None:
    for read in (as_text, question_text, answer_text):
        try:
            text = read(value)
        except (TypeError, UnicodeEncodeError):
            continue
        assert text is None or text == text.strip() != ""


@given(st.text(r"\boxed{}$# 0123abc" + "\n"))
def test_any_text_has_a_gold_answer_and_at_most_one_aime_integer(text: str) -> None:
    gold = gold_answer(text)
    assert gold == gold.strip()
    gold_of_solution(text)
    integer = aime_integer(gold)
    assert integer is None or str(int(integer)) == integer
