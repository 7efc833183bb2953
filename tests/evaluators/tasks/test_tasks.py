"""The registry of task sets, and what a task has to prove before it runs."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config.run_config import RunConfig
from engine.core import GRADERS, Problem, Task
from engine.errors import ConfigError, TaskError
from evaluators.tasks.prompts import PROMPTS
from evaluators.tasks.registry import TASKS, load_task, prove
from tests.support.paths import ROOT


def load(**settings: Any) -> Task:
    return load_task(RunConfig(**settings))


def task(*problems: Problem, grader: Any = "math") -> Task:
    return Task("mine", problems, "{question}", samples=1, max_tokens=8, grader=grader)


def aime(tmp_path: Path, num_problems: int) -> str:
    file = tmp_path / "aime.csv"
    rows = "".join(f"What is {number} less 0?,{number:03}\n" for number in range(num_problems))
    file.write_text(f"problem,answer\n{rows}")
    return str(file)


def test_the_sets_are_known_by_name_with_their_defaults() -> None:
    defaults = {
        name: (
            one.num_problems,
            one.prompt,
            one.grader,
            one.samples,
            one.max_tokens,
            one.gated,
            one.source,
        )
        for name, one in TASKS.items()
    }
    assert defaults == {
        "arithmetic": (200, "plain", "math", 8, 192, False, "embedded"),
        "aime24": (30, "boxed", "math", 32, 8000, False, "HuggingFaceH4/aime_2024"),
        "aime25": (30, "boxed", "math", 32, 8000, False, "math-ai/aime25"),
        "gpqa-diamond": (198, "gpqa", "choice", 8, 8000, True, "Idavidrein/gpqa"),
    }
    assert all(name == one.name and one.description for name, one in TASKS.items())


def test_arithmetic_has_the_defaults_of_the_embedded_pair_and_nothing_to_note() -> None:
    arithmetic = load()
    assert (len(arithmetic.problems), arithmetic.template, arithmetic.samples) == (
        200,
        "{question}",
        8,
    )
    assert (arithmetic.max_tokens, arithmetic.source, arithmetic.notes) == (192, "embedded", ())


def test_a_limit_takes_the_first_problems_and_nothing_else_changes(tmp_path: Path) -> None:
    whole = load()
    assert load(limit=3) == replace(whole, problems=whole.problems[:3])
    assert load(limit=10_000) == whole


def test_the_number_of_problems_is_judged_before_the_limit(tmp_path: Path) -> None:
    assert load(task="aime24", task_data=aime(tmp_path, 30), limit=2).notes == ()
    short = load(task="aime24", task_data=aime(tmp_path, 29), limit=2)
    assert len(short.problems) == 2
    assert short.notes == (f"aime24 has 30 problems, {tmp_path / 'aime.csv'} holds 29",)


def test_the_prompt_the_template_and_the_grader_of_the_user_go_before_the_tasks(
    tmp_path: Path,
) -> None:
    template = tmp_path / "mine.txt"
    template.write_text("Q: {question}\n")
    file = aime(tmp_path, 3)
    assert load(task="aime24", task_data=file).template == PROMPTS["boxed"]
    assert load(task="aime24", task_data=file, prompt="dapo").template == PROMPTS["dapo"]
    assert load(task="aime24", task_data=file, prompt_template=template).template == "Q: {question}"
    assert load(task="aime24", task_data=file, grader="integer").grader == "integer"


def test_a_template_that_cannot_be_used_is_found_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="prompt_template nowhere cannot be read"):
        load(task="aime24", task_data="nowhere.csv", prompt_template="nowhere")


def test_an_unknown_task_is_named_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(
        TaskError,
        match=r"'arithmetics' is not known \(did you mean 'arithmetic'\?\); known: aime24, ",
    ):
        load(task="arithmetics")
    with pytest.raises(
        TaskError, match=r"'AIME-24' is not known \(did you mean 'aime24' or 'aime25'\?\)"
    ):
        load(task="AIME-24")
    with pytest.raises(
        TaskError, match=r"'zzz' is not known; known: .*; or give a CSV, JSONL or Parquet file"
    ):
        load(task="zzz")


def test_a_name_of_the_registry_goes_before_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "arithmetic").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load(limit=1).source == "embedded"
    with pytest.raises(TaskError, match="holds no CSV, JSONL or Parquet file"):
        load(task="./arithmetic")


@pytest.mark.parametrize("option", ["task_data", "question_column", "answer_column", "id_column"])
def test_the_embedded_task_has_no_data_to_name(option: str) -> None:
    with pytest.raises(TaskError, match=f"^{option} is 'x', but the task 'arithmetic' is embedded"):
        load(**{option: "x"})


def test_a_file_is_given_once(tmp_path: Path) -> None:
    file = aime(tmp_path, 1)
    with pytest.raises(
        TaskError, match=r"^task_data is 'x\.csv', but task names a place already, .*: give one$"
    ):
        load(task=file, task_data="x.csv")


def test_an_empty_task_is_refused() -> None:
    with pytest.raises(TaskError, match="'mine' has no problems"):
        prove(task())


def test_double_ids_are_refused() -> None:
    with pytest.raises(TaskError, match="1 problem ids more than once, among them 'a'"):
        prove(task(Problem("a", "1?", "1"), Problem("b", "2?", "2"), Problem("a", "3?", "3")))


@pytest.mark.parametrize(
    ("grader", "answer"),
    [("math", "1"), ("math", r"\frac{1}{2}"), ("integer", "1"), ("choice", "C"), ("exact", "a b")],
)
def test_a_gold_answer_that_its_grader_takes_is_proved(grader: str, answer: str) -> None:
    prove(
        task(
            Problem("a", "1?", answer, (1, 2, 0, 3) if grader == "choice" else None), grader=grader
        )
    )


@pytest.mark.parametrize(
    ("grader", "answer"),
    [
        ("math", ""),
        ("math", r"\frac{1"),
        ("integer", "one"),
        ("integer", "1/2"),
        ("choice", "1"),
        ("exact", "}{"),
    ],
)
def test_a_gold_answer_that_its_own_grader_does_not_take_is_refused(
    grader: str, answer: str
) -> None:
    options = (1, 0, 2, 3) if grader == "choice" else None
    right = "B" if grader == "choice" else "1"
    problems = (Problem("a", "1?", right, options), Problem("b", "2?", answer, options))
    with pytest.raises(
        TaskError, match=r"gold answers of 1 of 2 .* .b.: .* another --answer-column or --grader"
    ):
        prove(task(*problems, grader=grader))


def test_a_grader_that_does_not_fit_the_task_is_refused_before_anything_runs(
    tmp_path: Path,
) -> None:
    assert set(GRADERS) == {"math", "integer", "choice", "exact"}
    with pytest.raises(TaskError, match="the grader 'choice' reads"):
        load(grader="choice", limit=3)


def test_listing_the_sets_needs_no_network_and_nothing_heavy() -> None:
    heavy = (
        "pyarrow",
        "numpy",
        "datasets",
        "pandas",
        "huggingface_hub",
        "math_verify",
        "torch",
        "transformers",
        "vllm",
    )
    code = f"""
import sys
from evaluators.tasks.registry import TASKS
assert sorted(TASKS) == ["aime24", "aime25", "arithmetic", "gpqa-diamond"]
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
