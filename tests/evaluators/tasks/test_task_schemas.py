"""Every public schema of the field as a small file with problems of our own, through
`load_task`.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.config.run_config import RunConfig
from engine.core import Task
from engine.errors import TaskError
from evaluators.tasks.prompts import PROMPTS
from evaluators.tasks.registry import load_task

Rows = list[dict[str, Any]]

APPLES = "Ada has 40 apples and eats 3 of them, then gets 36 new ones. How many are there?"
SQUARES = "How many squares of integers lie between 1 and 25, both included?"


def write_csv(file: Path, rows: Rows) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(file: Path, rows: Rows) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(file: Path, rows: Rows) -> None:
    pq.write_table(pa.Table.from_pylist(rows), file)


WRITERS: dict[str, Callable[[Path, Rows], None]] = {
    ".csv": write_csv, ".jsonl": write_jsonl, ".parquet": write_parquet,
}  # fmt: skip


def chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": PROMPTS["dapo"].replace("{question}", question)}]


def dapo(question: str, gold: str, **extra_info: Any) -> dict[str, Any]:
    """A row as verl reads it (BytedTsinghua-SIA/AIME-2024)."""
    return {
        "data_source": "math_dapo",
        "prompt": chat(question),
        "ability": "MATH",
        "reward_model": {"ground_truth": gold, "style": "rule-lighteval/MATH_v2"},
        "extra_info": {"index": 0, **extra_info},
    }


AIME_SCHEMAS: dict[str, tuple[Rows, list[str]]] = {
    "HuggingFaceH4/aime_2024": (
        [
            {
                "id": 60,
                "problem": APPLES,
                "solution": r"So \boxed{37}, or not",
                "answer": "073",
                "url": "u",
                "year": "2024",
            },
            {
                "id": 61,
                "problem": SQUARES,
                "solution": "See above.",
                "answer": "005",
                "url": "u",
                "year": "2024",
            },
        ],
        ["60", "61"],
    ),
    "Maxwell-Jia/AIME_2024": (
        [
            {"ID": "2024-II-4", "Problem": APPLES, "Solution": "Counting.", "Answer": 73},
            {"ID": "2024-I-2", "Problem": SQUARES, "Solution": "Counting.", "Answer": 5},
        ],
        ["2024-II-4", "2024-I-2"],
    ),
    "math-ai/aime24": (
        [
            {"id": 0, "problem": APPLES, "solution": r"\boxed{073}", "url": "u"},
            {"id": 1, "problem": SQUARES, "solution": r"\boxed{5}", "url": "u"},
        ],
        ["0", "1"],
    ),
    "math-ai/aime25": (
        [
            {"problem": APPLES, "answer": "73", "id": "0"},
            {"problem": SQUARES, "answer": "5^\\circ", "id": "1"},
        ],
        ["0", "1"],
    ),
    "opencompass/AIME2025": (
        [{"question": APPLES, "answer": "73"}, {"question": SQUARES, "answer": "5"}],
        ["80dd8ad8cb03", "cee3e94c98d3"],
    ),
    "MathArena/aime_2025": (
        [
            {"problem_idx": 1, "problem": APPLES, "answer": 73, "problem_type": ["Algebra"]},
            {"problem_idx": 2, "problem": SQUARES, "answer": 5, "problem_type": ["Number Theory"]},
        ],
        ["1", "2"],
    ),
}


def load(file: Path | str, task: str = "aime24", **options: Any) -> Task:
    return load_task(RunConfig(task=task, task_data=str(file), **options))


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("schema", AIME_SCHEMAS)
def test_aime_is_read_from_every_public_schema_in_every_format(
    tmp_path: Path, schema: str, suffix: str
) -> None:
    rows, ids = AIME_SCHEMAS[schema]
    WRITERS[suffix](tmp_path / f"a{suffix}", rows)
    problems = load(tmp_path / f"a{suffix}").problems
    assert [(problem.question, problem.answer) for problem in problems] == [
        (APPLES, "73"),
        (SQUARES, "5"),
    ]
    assert [problem.id for problem in problems] == [f"aime24/{id}" for id in ids]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("raw_problem", [True, False])
def test_dapos_aime_is_read_without_its_prompt_and_its_repetitions(
    tmp_path: Path, suffix: str, raw_problem: bool
) -> None:
    extra = [{"raw_problem": question} if raw_problem else {} for question in (APPLES, SQUARES)]
    rows = [dapo(APPLES, "73", **extra[0]), dapo(SQUARES, "5", **extra[1])] * 32
    file = tmp_path / f"a{suffix}"
    WRITERS[suffix](file, rows)
    task = load(file)
    assert [(problem.question, problem.answer) for problem in task.problems] == [
        (APPLES, "73"),
        (SQUARES, "5"),
    ]
    assert task.notes == (
        "64 rows hold 2 problems: repeated ones are taken once",
        f"aime24 has 30 problems, {file} holds 2",
    )


def test_a_gold_answer_may_be_inside_a_struct_that_is_written_as_json(tmp_path: Path) -> None:
    rows = [
        {
            key: json.dumps(value) if key != "ability" else value
            for key, value in dapo(APPLES, "073").items()
        }
    ]
    write_csv(tmp_path / "a.csv", rows)
    (problem,) = load(tmp_path / "a.csv").problems
    assert (problem.question, problem.answer) == (APPLES, "73")


def test_a_folder_with_both_papers_is_one_set_even_where_both_count_from_one(
    tmp_path: Path,
) -> None:
    write_jsonl(tmp_path / "aime2025-I.jsonl", [{"id": 1, "question": APPLES, "answer": "73"}])
    write_jsonl(tmp_path / "aime2025-II.jsonl", [{"id": 1, "question": SQUARES, "answer": "5"}])
    task = load(tmp_path, "aime25")
    assert [problem.answer for problem in task.problems] == ["73", "5"]
    assert len({problem.id for problem in task.problems}) == 2
    assert "aime2025-II.jsonl, line 1 have the same id, '1'" in task.notes[0]


@pytest.mark.parametrize(
    "answer", ["1000", "-1", "7.5", "seventy", r"\frac{1}{2}", "1,000", "NA", "True"]
)
def test_aime_takes_no_other_answer_and_names_the_row(tmp_path: Path, answer: str) -> None:
    write_csv(
        tmp_path / "a.csv",
        [{"problem": APPLES, "answer": "73"}, {"problem": SQUARES, "answer": answer}],
    )
    with pytest.raises(
        TaskError, match=r"a\.csv, line 3: the gold answer .* is no integer from 0 to 999"
    ):
        load(tmp_path / "a.csv")


FILE_SCHEMAS: dict[str, tuple[dict[str, Any], str, str]] = {
    "HuggingFaceH4/MATH-500": (
        {
            "problem": APPLES,
            "solution": r"\boxed{1}",
            "answer": r"\frac{146}{2}",
            "level": 2,
            "unique_id": "a/1",
        },
        "a/1",
        r"\frac{146}{2}",
    ),
    "openai/gsm8k": (
        {"question": APPLES, "answer": "40 - 3 = 37\n37 + 36 = 73\n#### 73"},
        "80dd8ad8cb03",
        "73",
    ),
    "Hothan/OlympiadBench": (
        {"id": 7, "question": APPLES, "final_answer": ["73"], "solution": ["x"]},
        "7",
        "73",
    ),
    "Skywork/Skywork-OR1": (
        {"prompt": chat(APPLES), "reward_model": {"ground_truth": '["73"]', "style": "rule"}},
        "80dd8ad8cb03",
        "73",
    ),
    "agentica-org/DeepScaleR": (
        {"problem": APPLES, "answer": "73", "solution": ""},
        "80dd8ad8cb03",
        "73",
    ),
    "expected_answer": ({"uid": "a", "problem": APPLES, "expected_answer": "$73$"}, "a", "$73$"),
    "target": ({"prompt": APPLES, "target": 73.0}, "80dd8ad8cb03", "73"),
}


@pytest.mark.parametrize("schema", FILE_SCHEMAS)
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_file_of_ones_own_may_have_any_of_the_usual_schemas(
    tmp_path: Path, schema: str, suffix: str
) -> None:
    row, id, answer = FILE_SCHEMAS[schema]
    WRITERS[suffix](tmp_path / f"mine{suffix}", [row])
    task = load_task(RunConfig(task=str(tmp_path / f"mine{suffix}")))
    (problem,) = task.problems
    assert (problem.id, problem.question, problem.answer) == (f"mine/{id}", APPLES, answer)


def test_a_file_of_ones_own_is_called_after_it_and_has_the_defaults(tmp_path: Path) -> None:
    write_csv(tmp_path / "my problems.csv", [{"problem": APPLES, "answer": "73"}])
    file = str(tmp_path / "my problems.csv")
    task = load_task(RunConfig(task=file))
    assert (task.name, task.source, task.template) == ("my problems", file, PROMPTS["boxed"])
    assert (task.samples, task.max_tokens, task.grader, task.gated, task.notes) == (
        8,
        8000,
        "math",
        False,
        (),
    )


def test_a_folder_of_ones_own_is_called_after_it(tmp_path: Path) -> None:
    (tmp_path / "v1.2").mkdir()
    write_csv(tmp_path / "v1.2" / "a.csv", [{"problem": APPLES, "answer": "73"}])
    assert load_task(RunConfig(task=str(tmp_path / "v1.2"))).problems[0].id.startswith("v1.2/")


def test_a_name_that_cannot_be_shown_is_no_name_for_a_task(tmp_path: Path) -> None:
    write_csv(tmp_path / "a\x1b[31m.csv", [{"problem": APPLES, "answer": "73"}])
    with pytest.raises(TaskError, match="its name must be printable: rename it"):
        load_task(RunConfig(task=str(tmp_path / "a\x1b[31m.csv")))


@pytest.mark.parametrize("task", ["aime24", "file"])
def test_columns_may_be_named_with_any_task_that_is_read(tmp_path: Path, task: str) -> None:
    file = tmp_path / "a.jsonl"
    write_jsonl(
        file, [{"problem": "no", "answer": "1", "Text": APPLES, "meta": {"gold": 73, "key": "k"}}]
    )
    columns: dict[str, Any] = {
        "question_column": "text",
        "answer_column": "meta.gold",
        "id_column": "META.KEY",
    }
    options: dict[str, Any] = (
        {"task": str(file)} if task == "file" else {"task": task, "task_data": str(file)}
    )
    (problem,) = load_task(RunConfig(**options, **columns)).problems
    assert (problem.id.rpartition("/")[2], problem.question, problem.answer) == ("k", APPLES, "73")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"problem": APPLES, "answer": "73"}, {"problem": SQUARES}], "line 2: 'answer' is empty"),
        (
            [{"problem": APPLES, "answer": "73"}, {"problem": " ", "answer": 1}],
            "line 2: 'problem' is empty",
        ),
        ([{"problem": APPLES, "answer": None}], "line 1: 'answer' is empty"),
        (
            [{"problem": APPLES, "answer": ["1", "2"]}],
            "line 1: 'answer' is a list, not text or a number",
        ),
        ([{"problem": "\ud800", "answer": 1}], "line 1: 'problem' is not valid Unicode"),
        (
            [{"problem": APPLES, "solution": "73"}],
            r"line 1: the solution holds no \boxed{}: say with --answer-column",
        ),
        (
            [{"text": APPLES, "answer": "1"}],
            "none of its columns ('text', 'answer') is called like the question; say",
        ),
        (
            [{"problem": APPLES, "key": "1"}],
            "none of its columns ('problem', 'key') is called like the answer; say",
        ),
        (
            [{"problem": APPLES, "answer": 1}, {"problem": APPLES, "answer": 2}],
            "repeats the question",
        ),
    ],
)
def test_a_row_that_makes_no_problem_is_an_error_that_names_it(
    tmp_path: Path, rows: Rows, message: str
) -> None:
    file = tmp_path / "mine.jsonl"
    write_jsonl(file, rows)
    with pytest.raises(TaskError) as error:
        load_task(RunConfig(task=str(file)))
    assert message in str(error.value) and str(file) in str(error.value)


def test_a_file_with_a_header_alone_has_no_problems(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("problem,answer\n")
    with pytest.raises(TaskError, match="task 'mine' has no problems"):
        load_task(RunConfig(task=str(tmp_path / "mine.csv")))


def test_ids_stay_when_the_rows_are_put_in_another_order(tmp_path: Path) -> None:
    rows = [{"problem": APPLES, "answer": "73"}, {"problem": SQUARES, "answer": "5"}]
    write_csv(tmp_path / "mine.csv", rows)
    before = load_task(RunConfig(task=str(tmp_path / "mine.csv"))).problems
    write_csv(tmp_path / "mine.csv", rows[::-1])
    assert load_task(RunConfig(task=str(tmp_path / "mine.csv"))).problems == before[::-1]
