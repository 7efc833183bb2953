"""The order of GPQA's options: even over the letters, the same for ever, and stored with the
problem.
"""

import csv
from collections import Counter
from pathlib import Path

import pytest

from engine.config.run_config import RunConfig
from engine.core import Task
from engine.errors import TaskError
from evaluators.tasks.gpqa import LETTERS, option_order
from evaluators.tasks.registry import load_task

COLUMNS = (
    "Record ID",
    "Question",
    "Correct Answer",
    "Incorrect Answer 1",
    "Incorrect Answer 2",
    "Incorrect Answer 3",
)
GASES = "Which of these gases is the lightest at the same pressure and temperature?"
CHI_SQUARE_3_DF = 16.27  # exceeded once in 1,000
CHI_SQUARE_23_DF = 49.73


def write(tmp_path: Path, *rows: tuple[str, ...], columns: tuple[str, ...] = COLUMNS) -> str:
    file = tmp_path / "gpqa_diamond.csv"
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([columns, *rows])
    return str(file)


def gpqa(file: str, seed: int = 0) -> Task:
    return load_task(RunConfig(task="gpqa-diamond", task_data=file, seed=seed))


def chi_square(counts: Counter[object], num_cells: int) -> float:
    expected = counts.total() / num_cells
    return sum((counts[cell] - expected) ** 2 / expected for cell in counts) + expected * (
        num_cells - len(counts)
    )


def test_the_worked_example_is_what_is_asked(tmp_path: Path) -> None:
    (problem,) = gpqa(
        write(tmp_path, ("rec07", GASES, "helium", "neon", "argon", "xenon"))
    ).problems
    assert problem.id == "gpqa-diamond/rec07"
    assert problem.question == f"{GASES}\n\nA) neon\nB) xenon\nC) argon\nD) helium"
    assert (problem.answer, problem.options) == ("D", (1, 3, 2, 0))


def test_the_order_never_changes() -> None:
    assert [option_order(f"rec{n}", seed) for n in (0, 1, 2) for seed in (0, 1)] == [
        (0, 1, 3, 2), (3, 2, 0, 1), (0, 1, 3, 2), (1, 2, 3, 0), (2, 0, 1, 3), (1, 2, 0, 3),
    ]  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_gold_letters_are_spread_evenly_and_so_are_all_orders(seed: int) -> None:
    orders = [option_order(f"rec{n:04}", seed) for n in range(4_000)]
    positions: Counter[object] = Counter(order.index(0) for order in orders)
    assert all(0.2 < positions[place] / 4_000 < 0.3 for place in range(4))
    assert chi_square(positions, 4) < CHI_SQUARE_3_DF
    assert chi_square(Counter(orders), 24) < CHI_SQUARE_23_DF


def test_over_seeds_a_record_has_its_gold_answer_at_every_letter() -> None:
    positions: Counter[object] = Counter(
        option_order("rec", seed).index(0) for seed in range(4_000)
    )
    assert chi_square(positions, 4) < CHI_SQUARE_3_DF


def test_an_order_says_nothing_about_the_order_under_another_seed() -> None:
    pairs: Counter[object] = Counter(
        (option_order(f"rec{n}", 0).index(0), option_order(f"rec{n}", 1).index(0))
        for n in range(4_000)
    )
    assert chi_square(pairs, 16) < 37.70


def test_a_seed_gives_the_same_problems_in_any_order_of_rows_and_another_seed_others(
    tmp_path: Path,
) -> None:
    rows = [(f"rec{n}", f"Question {n}?", "right", "wrong", "false", "off") for n in range(8)]
    problems = gpqa(write(tmp_path, *rows)).problems
    assert set(gpqa(write(tmp_path, *reversed(rows))).problems) == set(problems)
    assert gpqa(write(tmp_path, *reversed(rows)), seed=1).problems != problems


def test_options_say_which_option_of_the_source_stands_at_each_letter(tmp_path: Path) -> None:
    texts = ("right", "wrong", "false", "off")
    for problem in gpqa(
        write(tmp_path, *((f"rec{n}", f"Question {n}?", *texts) for n in range(8)))
    ).problems:
        assert problem.options is not None
        shown = [line.split(") ")[1] for line in problem.question.split("\n")[2:]]
        assert shown == [texts[option] for option in problem.options]
        assert problem.answer == LETTERS[shown.index("right")]


def test_the_task_is_gated_multiple_choice_and_notes_that_it_is_not_whole(tmp_path: Path) -> None:
    file = write(tmp_path, ("rec07", GASES, "helium", "neon", "argon", "xenon"))
    task = gpqa(file)
    assert (task.gated, task.grader, task.samples, task.max_tokens) == (True, "choice", 8, 8000)
    assert task.user_turn(task.problems[0]).startswith(
        "Answer the following multiple choice question."
    )
    assert task.notes == (f"gpqa-diamond has 198 problems, {file} holds 1",)


def test_cells_are_stripped_and_an_option_that_says_none_is_an_option(tmp_path: Path) -> None:
    (problem,) = gpqa(
        write(tmp_path, (" rec1 ", " How many? \n", "None", "NA", " nan", "null "))
    ).problems
    assert problem.id == "gpqa-diamond/rec1"
    assert problem.question.startswith("How many?\n\nA) ")
    assert {line[3:] for line in problem.question.split("\n")[2:]} == {"None", "NA", "nan", "null"}


def test_columns_of_the_hub_set_that_are_not_needed_do_no_harm(tmp_path: Path) -> None:
    columns = (
        "Pre-Revision Question",
        "Extra Revised Correct Answer",
        *COLUMNS,
        "High-level domain",
        "Subdomain",
    )
    file = write(
        tmp_path,
        ("old", "", "rec07", GASES, "helium", "neon", "argon", "xenon", "", "x"),
        columns=columns,
    )
    assert gpqa(file).problems[0].question.startswith(GASES)


def test_rows_with_the_same_question_and_options_are_one_and_with_other_options_two(
    tmp_path: Path,
) -> None:
    row = (GASES, "helium", "neon", "argon", "xenon")
    task = gpqa(
        write(tmp_path, ("a", *row), ("b", *row), ("c", GASES, "neon", "argon", "xenon", "krypton"))
    )
    assert [problem.id for problem in task.problems] == ["gpqa-diamond/a", "gpqa-diamond/c"]
    with pytest.raises(
        TaskError, match=r"line 3 repeats the question of .*, line 2 with another gold answer"
    ):
        gpqa(write(tmp_path, ("a", *row), ("b", GASES, "neon", "helium", "argon", "xenon")))


@pytest.mark.parametrize("cell", [1, 2, 3])
def test_messages_name_the_row_and_column_and_never_the_text_of_the_set(
    tmp_path: Path, cell: int
) -> None:
    row = ["rec1", "SECRET question", "SECRET right", "SECRET wrong", "SECRET false", "SECRET off"]
    row[cell] = " "
    with pytest.raises(TaskError, match=rf"line 2: '{COLUMNS[cell]}' is empty") as error:
        gpqa(write(tmp_path, tuple(row)))
    assert "SECRET" not in str(error.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"is called like the Incorrect Answer 3$"):
        gpqa(write(tmp_path, ("r", "q", "a", "b", "c"), columns=COLUMNS[:-1]))


def test_without_record_ids_the_order_comes_from_the_question(tmp_path: Path) -> None:
    file = write(tmp_path, (GASES, "helium", "neon", "argon", "xenon"), columns=COLUMNS[1:])
    (problem,) = gpqa(file).problems
    assert problem.options == option_order(problem.id.removeprefix("gpqa-diamond/"), 0)


def test_of_a_folder_with_all_of_gpqa_only_the_diamond_set_is_read(tmp_path: Path) -> None:
    write(tmp_path, ("rec07", GASES, "helium", "neon", "argon", "xenon"))
    (tmp_path / "gpqa_main.csv").write_text("no,such,columns\n1,2,3\n")
    assert len(gpqa(str(tmp_path)).problems) == 1
