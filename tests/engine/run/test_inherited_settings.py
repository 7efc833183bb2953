"""Settings of another run: what a run.json says is what its user gave, and nothing else is taken
over.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.inheritance import INHERITED_BY_CONTROL
from engine.config.run_config import RunConfig
from engine.errors import RunDirectoryError
from engine.run.plan import prepare
from engine.run.run_json import manifest_of
from engine.run.settings import load, settings_of
from engine.store.run_store import RunStore
from evaluators.tasks.registry import load_task

GIVEN: dict[str, Any] = {
    "base": "some/base", "rl": "some/rl", "task": "my.csv", "answer_column": "gold",
    "prompt_template": Path("ask.txt"), "grader": "exact", "limit": 3, "direction": "reverse",
    "budget": (0, 8, None), "window": ":25%", "eos": "drop", "extrapolate": 0.1,
    "extrapolate_to": "base", "temperature": 0.7, "top_p": 0.9, "top_k": 5, "seed": 3,
    "trace": "full", "record_threshold": 0.2, "record_top_k": 4, "dtype": "float32",
}  # fmt: skip
RESOLVED: dict[str, Any] = {
    "samples": 4,
    "max_tokens": 64,
    "out": "runs/a",
    "device": "cpu",
    "max_model_len": 128,
}
NOT_TAKEN_OVER = {
    "criterion": "kl",
    "threshold": 0.5,
    "trust_remote_code": True,
    "pairs": 2,
    "ray_address": "auto",
}


def write_run(path: Path, config: object) -> Path:
    RunStore.open(path, {"identity": {}, "config": config}).close()
    return path


def stored(**more: object) -> dict[str, Any]:
    """A run.json's config as a plan writes it."""
    return RunConfig(**GIVEN, device="cpu").model_dump(mode="json") | RESOLVED | more


def test_what_a_run_was_given_is_what_comes_back(tmp_path: Path) -> None:
    inherited = settings_of(
        write_run(tmp_path / "run", stored(**NOT_TAKEN_OVER)), INHERITED_BY_CONTROL
    )
    expected = RunConfig(**GIVEN, samples=4, max_tokens=64)
    assert RunConfig(**inherited) == expected


def test_only_the_names_that_are_asked_for_come_back(tmp_path: Path) -> None:
    assert settings_of(write_run(tmp_path / "run", stored()), ("seed", "top_k")) == {
        "seed": 3,
        "top_k": 5,
    }


def test_what_has_no_value_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", RunConfig().model_dump(mode="json"))
    inherited = settings_of(run, INHERITED_BY_CONTROL)
    assert None not in inherited.values() and "base" not in inherited
    assert RunConfig(**inherited) == RunConfig()


def test_unlimited_is_a_null_in_the_list_of_a_run_json(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"budget": [0, None]})
    assert load(None, {}, settings_of(run, INHERITED_BY_CONTROL)).budget == (0, None)


def test_a_control_takes_over_what_makes_the_numbers_and_not_who_differs_nor_the_machine() -> None:
    assert set(INHERITED_BY_CONTROL) < set(RunConfig.model_fields)
    assert not {*NOT_TAKEN_OVER, "out", "device", "max_model_len", "match"} & set(
        INHERITED_BY_CONTROL
    )


def test_what_a_plan_writes_can_be_inherited(tmp_path: Path) -> None:
    config = RunConfig(device="cpu", limit=2, seed=5, budget=(1, None), out=tmp_path / "run")
    plan = prepare(config, load_task(config))
    RunStore.open(tmp_path / "run", manifest_of(plan)).close()
    resolved = manifest_of(plan)["config"]
    assert resolved["samples"] and resolved["max_tokens"]
    inherited = load(None, {"criterion": "random", "match": tmp_path / "run", "device": "cpu"})
    assert (inherited.seed, inherited.limit, inherited.budget) == (5, 2, (1, None))
    assert (inherited.samples, inherited.max_tokens) == (
        resolved["samples"],
        resolved["max_tokens"],
    )
    assert (inherited.base, inherited.out, inherited.max_model_len) == (None, None, None)


@settings(deadline=None, max_examples=30)
@given(st.fixed_dictionaries({}, optional={
    "budget": st.sampled_from([(0,), (1, 8), (None,), (0, None)]),
    "seed": st.integers(0, 2**63 - 1), "window": st.sampled_from(["32:", ":25%", None]),
    "temperature": st.floats(0.1, 2), "limit": st.none() | st.just(3),
    "prompt_template": st.none() | st.just(Path("ask.txt")), "record_top_k": st.integers(1, 100),
}))  # fmt: skip
def test_any_settings_are_the_same_after_a_run_json(
    tmp_path_factory: Any, values: dict[str, Any]
) -> None:
    config = RunConfig(**values)
    run = write_run(tmp_path_factory.mktemp("runs") / "run", config.model_dump(mode="json"))
    assert RunConfig(**settings_of(run, INHERITED_BY_CONTROL)) == config


def test_half_of_the_settings_is_taken_though_it_would_not_go_together_alone(
    tmp_path: Path,
) -> None:
    assert settings_of(write_run(tmp_path / "run", stored()), ("base",)) == {"base": "some/base"}


@pytest.mark.parametrize("content", [None, "", "{", "[]", "1", "{}", '{"schema_version": 0}'])
def test_what_is_no_run_is_refused_by_its_name(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunDirectoryError) as error:
        settings_of(tmp_path, INHERITED_BY_CONTROL)
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("config", [None, [], "seed"])
def test_a_run_json_without_settings_is_refused(tmp_path: Path, config: object) -> None:
    with pytest.raises(
        RunDirectoryError, match=r"run\.json holds no settings: give the --out folder"
    ):
        settings_of(write_run(tmp_path / "run", config), INHERITED_BY_CONTROL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": "x"},
        {"budget": [8, 0]},
        {"top_p": 2},
        {"task": ["a"]},
        {"window": "9"},
        {"eos": {"a": 1}},
    ],
)
def test_a_value_that_no_run_has_is_refused_with_the_file_that_holds_it(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(RunDirectoryError) as error:
        settings_of(write_run(tmp_path / "run", stored(**wrong)), INHERITED_BY_CONTROL)
    (name,) = wrong
    assert f"run.json: {name} is {json.loads(json.dumps(wrong))[name]!r}" in str(error.value)
