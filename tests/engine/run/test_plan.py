"""What makes two plans the same run: a run directory may be resumed with one and is refused with
the other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.core import GIVEN, ExternalResponse, ExternalResponses, Problem, Task, Trajectory
from engine.errors import ConfigError, ModelError
from engine.run.plan import Plan, prepare, prepare_score
from engine.run.run_json import manifest_of
from engine.run.settings import load
from engine.store.schema import expected_trajectories

PROBLEMS = (Problem("t/1", "11+22=?", "33"), Problem("t/2", "22+33=?", "55"))
TASK = Task("t", PROBLEMS, "{question}", 1, 9)


def identity(task: Task, **settings: Any) -> dict[str, Any]:
    return dict(
        manifest_of(prepare(load(None, {"device": "cpu", "out": "unused"} | settings), task))[
            "identity"
        ]
    )


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> set[str]:
    return {key for key in ours if ours[key] != theirs[key]}


def test_the_order_in_which_a_source_lists_its_problems_and_where_it_lies_change_no_run() -> None:
    assert identity(TASK) == identity(replace(TASK, problems=PROBLEMS[::-1], source="elsewhere"))


def test_another_question_gold_answer_id_prompt_or_grader_is_another_run_and_says_which() -> None:
    one, other = PROBLEMS
    ours = identity(TASK)
    for changed, name in [
        (
            replace(TASK, problems=(one, replace(other, question="22+34=?"))),
            "ids_answers_and_prompts",
        ),
        (replace(TASK, problems=(one, replace(other, answer="56"))), "ids_answers_and_prompts"),
        (replace(TASK, problems=(one, replace(other, id="t/3"))), "ids_answers_and_prompts"),
        (replace(TASK, template="Sum: {question}"), "template"),
        (replace(TASK, grader="integer"), "grader"),
    ]:
        assert name in differing(ours, identity(changed))


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"criterion": "kl", "threshold": 0.1}, {"criterion"}),
        ({"threshold": 0.2}, {"threshold"}),
        ({"threshold": 0.1}, set()),  # the default, said
        ({"window": "2:"}, {"window"}),
        ({"eos": "drop"}, {"eos"}),
        ({"window": ":100%"}, set()),  # everywhere, said
        ({"extrapolate": 0.1, "extrapolate_to": "rl"}, {"extrapolate", "extrapolate_to"}),
        ({"criterion": "argmax"}, {"criterion", "threshold"}),
        ({"trace": "full"}, {"trace"}),
        ({"budget": "8,unlimited"}, {"budget"}),
        ({"pairs": 2, "max_num_seqs": 7, "rendezvous": "tcp", "step_timeout": 9.0}, set()),
    ],
)
def test_what_decides_the_numbers_is_in_the_identity_and_where_it_runs_is_not(
    settings: dict[str, Any], names: set[str]
) -> None:
    assert differing(identity(TASK), identity(TASK, **settings)) == names


def given(*responses: list[int], stopped: bool = True) -> ExternalResponses:
    made = [
        ExternalResponse(Trajectory("t/1", n, GIVEN, None), [1, 2], response, stopped, f"row {n}")
        for n, response in enumerate(responses)
    ]
    return ExternalResponses("answers", "answers.jsonl", tuple(made))


def scored(responses: ExternalResponses, **settings: Any) -> Plan:
    return prepare_score(
        load(None, {"device": "cpu", "out": "unused"} | settings), lambda pair: responses
    )


def test_given_responses_are_another_run_when_a_token_an_ending_or_the_sampling_is_another() -> (
    None
):
    ours = manifest_of(scored(given([3, 4], [5])))["identity"]
    assert differing(ours, manifest_of(scored(given([3, 4], [5])))["identity"]) == set()
    for changed in (given([3, 4], [6]), given([3, 4]), given([3, 4], [5], stopped=False)):
        assert differing(ours, manifest_of(scored(changed))["identity"]) == {"responses"}
    assert differing(ours, manifest_of(scored(given([3, 4], [5]), top_p=0.9))["identity"]) == {
        "top_p"
    }


def test_given_responses_with_other_gold_answers_or_another_grader_are_another_run() -> None:
    answered = replace(given([3, 4], [5]), problems=PROBLEMS[:1])
    ours = manifest_of(scored(answered))["identity"]
    other = replace(answered, problems=(replace(PROBLEMS[0], answer="34"),))
    assert differing(ours, manifest_of(scored(other))["identity"]) == {"answers"}
    assert differing(ours, manifest_of(scored(replace(answered, grader="exact")))["identity"]) == {
        "grader"
    }
    assert differing(ours, manifest_of(scored(given([3, 4], [5])))["identity"]) == {
        "answers",
        "grader",
    }


def test_a_scored_run_expects_each_given_response_and_has_no_settings_of_its_making() -> None:
    manifest = manifest_of(scored(given([3, 4], [5])))
    assert expected_trajectories(manifest["expected"]) == {
        Trajectory("t/1", n, GIVEN, None): None for n in (0, 1)
    }
    assert not manifest["config"].keys() & {
        "budget",
        "direction",
        "criterion",
        "threshold",
        "window",
        "task",
    }


def test_a_response_that_the_models_cannot_hold_is_refused_by_its_name() -> None:
    with pytest.raises(
        ConfigError,
        match=r"row 1: prompt and response have 2 and 999 tokens, more than the context",
    ):
        scored(given([3], [4] * 999))
    with pytest.raises(ConfigError, match=r"row 1: .* more than the context of 10"):
        scored(given([3], [4] * 9), max_model_len=10)
    with pytest.raises(ConfigError, match=r"max_model_len 1000 is more than the pair's context"):
        scored(given([3]), max_model_len=1000)
    with pytest.raises(ModelError, match=r"row 0: it holds token id 5000"):
        scored(given([5000]))
