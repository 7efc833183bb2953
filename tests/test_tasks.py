"""The registry of task sets, and what a task has to prove before it runs."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import TaskError
from engine.problem import Problem, Task
from evaluators import tasks
from evaluators.tasks import TASKS, load_task


def register(monkeypatch: pytest.MonkeyPatch, *problems: Problem) -> None:
    task = Task("mine", problems, "{question}", samples=1, max_tokens=8)
    monkeypatch.setitem(tasks.TASKS, "mine", lambda: task)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_loads_and_its_gold_answers_grade_as_correct(name: str) -> None:
    task = load_task(name)
    assert task.name == name
    assert task.template.count("{question}") == 1


def test_arithmetic_has_the_defaults_of_the_embedded_pair() -> None:
    task = load_task("arithmetic", None)
    assert (len(task.problems), task.template, task.samples, task.max_tokens) == (200, "{question}", 8, 192)


def test_a_limit_takes_the_first_problems_and_nothing_else_changes() -> None:
    whole = load_task("arithmetic")
    assert load_task("arithmetic", 3) == replace(whole, problems=whole.problems[:3])
    assert load_task("arithmetic", 10_000) == whole


def test_an_unknown_task_is_named_with_the_nearest_and_all_known_ones() -> None:
    with pytest.raises(
        TaskError, match=r"'arithmetics' is not known \(did you mean 'arithmetic'\?\); known: arithmetic"
    ):
        load_task("arithmetics")
    with pytest.raises(TaskError, match=r"'zzz' is not known; known: arithmetic"):
        load_task("zzz")


def test_an_empty_task_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch)
    with pytest.raises(TaskError, match="'mine' has no problems"):
        load_task("mine")


def test_double_ids_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    register(monkeypatch, Problem("a", "1?", "1"), Problem("b", "2?", "2"), Problem("a", "3?", "3"))
    with pytest.raises(TaskError, match="1 problem ids more than once, among them 'a'"):
        load_task("mine")


@pytest.mark.parametrize(("answer", "verdict"), [("", "no_answer"), (r"\frac{1", "no_answer")])
def test_a_gold_answer_that_its_own_grader_does_not_take_is_refused(
    monkeypatch: pytest.MonkeyPatch, answer: str, verdict: str
) -> None:
    register(monkeypatch, Problem("a", "1?", "1"), Problem("b", "2?", answer))
    with pytest.raises(TaskError, match=f"among them 'b': .* says {verdict}"):
        load_task("mine")


def test_the_registry_imports_nothing_heavy() -> None:
    code = "import sys, evaluators.tasks; print([m for m in ('pyarrow', 'numpy', 'math_verify') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
