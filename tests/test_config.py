"""RunConfig: what is refused and how it is said, what an option means, and that nothing heavy is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import engine.config
from engine.config import DIRECTIONS, RunConfig, load, parse_budget
from engine.errors import ConfigError

ROOT = Path(engine.config.__file__).parents[1]
HEAVY = ("torch", "vllm", "ray", "pyarrow", "matplotlib", "transformers")
budgets = st.lists(st.none() | st.integers(0, 2**31 - 1), min_size=1, max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


@pytest.mark.parametrize("module", ["config", "errors", "problem", "preflight", "prompt", "doctor", "machine"])
def test_importing_a_light_module_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, engine.{module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


def test_with_nothing_given_it_is_the_embedded_pair_both_ways_with_budget_8() -> None:
    config = load(None, {})
    assert (config.base, config.rl, config.directions, config.budget) == (None, None, DIRECTIONS, (8,))


@given(st.text(max_size=20).filter(lambda key: key not in RunConfig.model_fields), json_values)
def test_an_unknown_key_is_refused_by_its_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, {key: value})
    assert repr(key) in str(error.value)


@given(st.sampled_from(sorted(RunConfig.model_fields)), json_values)
def test_any_value_of_a_known_key_is_taken_or_refused_by_the_name_of_the_key(key: str, value: object) -> None:
    try:
        load(None, {key: value})
    except ConfigError as error:
        assert key in str(error)
        assert "\n" not in str(error)


@given(st.binary(max_size=40))
def test_any_bytes_as_a_file_are_taken_or_refused_with_a_config_error(tmp_path_factory: Any, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    try:
        load(file, {})
    except ConfigError as error:
        assert "\n" not in str(error)


@given(budgets)
def test_a_budget_as_text_as_a_list_and_parsed_again_is_the_same(items: list[int | None]) -> None:
    text = ",".join("unlimited" if item is None else str(item) for item in items)
    assert parse_budget(text) == parse_budget(items) == parse_budget(parse_budget(text))


@given(budgets)
def test_budgets_are_sorted_unique_and_unlimited_is_last(items: list[int | None]) -> None:
    parsed = parse_budget(items)
    numbers = [budget for budget in parsed if budget is not None]
    assert set(parsed) == set(items)
    assert numbers == sorted(set(numbers))
    assert None not in parsed[:-1]


@pytest.mark.parametrize("budget", ["", "-1", "8,", "1.5", "all", "²", "2147483648", [], [1.5], True, {}])
def test_what_is_no_budget_is_refused(budget: object) -> None:
    with pytest.raises(ConfigError, match="budget"):
        load(None, {"budget": budget})


@given(st.fixed_dictionaries({}, optional={
    "budget": budgets, "threshold": st.floats(0, 10), "top_p": st.floats(0.01, 1), "seed": st.integers(0, 2**63 - 1),
    "direction": st.sampled_from(["forward", "reverse", "both"]), "out": st.just("runs/a"),
}))  # fmt: skip
def test_a_config_written_as_yaml_and_read_again_is_the_same(tmp_path_factory: Any, values: dict[str, Any]) -> None:
    config = load(None, values)
    file = tmp_path_factory.getbasetemp() / "again.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert load(file, {}) == config


def test_an_option_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("seed: 1\nsamples: 4\n")
    config = load(tmp_path / "run.yaml", {"seed": 2})
    assert (config.seed, config.samples) == (2, 4)


def test_a_key_that_is_nearly_right_is_answered_with_the_right_one(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("max-tokens: 8\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: unknown key 'max-tokens'; did you mean 'max_tokens'"):
        load(tmp_path / "run.yaml", {})


@pytest.mark.parametrize(
    ("content", "says"), [("a: [", "is not YAML"), ("- 1", "holds a list"), ("8", "holds a int"), ("a: \x00", "YAML")]
)
def test_a_file_that_is_no_mapping_is_refused_with_what_it_is(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "run.yaml").write_text(content)
    with pytest.raises(ConfigError, match=says):
        load(tmp_path / "run.yaml", {})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist"):
        load(tmp_path / "none.yaml", {})


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("# nothing yet\n")
    assert load(tmp_path / "run.yaml", {}) == load(None, {})


@pytest.mark.parametrize("given_", ["base", "rl"])
def test_half_a_pair_is_refused_with_the_half_that_is_missing(given_: str) -> None:
    missing = "rl" if given_ == "base" else "base"
    with pytest.raises(ConfigError, match=f"{given_} is given without {missing}"):
        load(None, {given_: "x"})


def test_greedy_with_a_nucleus_is_refused_and_without_is_not() -> None:
    with pytest.raises(ConfigError, match="greedy"):
        load(None, {"temperature": 0.0})
    assert load(None, {"temperature": 0.0, "top_p": 1.0}).temperature == 0


def test_two_sizes_of_the_kv_cache_are_refused() -> None:
    with pytest.raises(ConfigError, match="kv_cache_gib and num_kv_blocks"):
        load(None, {"kv_cache_gib": 1.0, "num_kv_blocks": 8})


@pytest.mark.parametrize(
    "key", ["threshold", "temperature", "top_p", "record_threshold", "step_timeout", "kv_cache_gib"]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        load(None, {key: value})


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load(None, {}).__setattr__("seed", 1)


def test_every_field_says_what_it_is() -> None:
    assert not [name for name, field in RunConfig.model_fields.items() if not field.description]
