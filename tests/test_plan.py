"""What makes two plans the same run: a run directory may be resumed with one and is refused with the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.config import load
from engine.plan import prepare
from engine.problem import Problem, Task

PROBLEMS = (Problem("t/1", "11+22=?", "33"), Problem("t/2", "22+33=?", "55"))
TASK = Task("t", PROBLEMS, "{question}", 1, 9)


def identity(task: Task) -> dict[str, Any]:
    return dict(prepare(load(None, {"device": "cpu", "out": "unused"}), task).manifest()["identity"])


def test_the_order_in_which_a_source_lists_its_problems_and_where_it_lies_change_no_run() -> None:
    assert identity(TASK) == identity(replace(TASK, problems=PROBLEMS[::-1], source="elsewhere"))


def test_another_question_gold_answer_id_prompt_or_grader_is_another_run_and_says_which() -> None:
    one, other = PROBLEMS
    ours = identity(TASK)
    for changed, name in [
        (replace(TASK, problems=(one, replace(other, question="22+34=?"))), "ids_answers_and_prompts"),
        (replace(TASK, problems=(one, replace(other, answer="56"))), "ids_answers_and_prompts"),
        (replace(TASK, problems=(one, replace(other, id="t/3"))), "ids_answers_and_prompts"),
        (replace(TASK, template="Sum: {question}"), "template"),
        (replace(TASK, grader="integer"), "grader"),
    ]:
        theirs = identity(changed)
        assert name in {key for key in ours if ours[key] != theirs[key]}
