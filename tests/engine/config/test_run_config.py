"""RunConfig: what is refused and in which words, what an option means, and its help."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from engine.config.run_config import PANELS, RunConfig
from engine.core import DIRECTIONS
from engine.errors import ConfigError
from engine.run.settings import load
from engine.sampling.rule import CriterionName, Rule
from engine.store.run_store import RunStore
from tests.support.paths import ROOT

HEAVY = ("torch", "vllm", "ray", "pyarrow", "matplotlib", "transformers")
budgets = st.sets(st.integers(0, 2**31 - 1), max_size=7).map(
    lambda numbers: [*sorted(numbers), None]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=4,
)


@pytest.mark.parametrize(
    "module",
    [
        "engine.config.inheritance",
        "engine.config.run_config",
        "engine.config.switching",
        "engine.core",
        "engine.errors",
        "engine.models.memory",
        "engine.models.pair_info",
        "engine.models.prompt",
        "engine.run.settings",
        "engine.system.machine",
        "evaluators.tasks.registry",
        "xsample",
        "xsample.cli.main",
        "xsample.doctor.diagnose",
    ],
)
def test_importing_a_light_module_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (run.returncode, run.stdout.strip()) == (0, ""), run.stderr


def test_with_nothing_given_it_is_the_embedded_pair_both_ways_with_budget_8() -> None:
    config = load(None, {})
    assert (config.base, config.rl, config.directions, config.budget) == (
        None,
        None,
        DIRECTIONS,
        (8,),
    )


@given(st.text(max_size=20).filter(lambda key: key not in RunConfig.model_fields), json_values)
def test_an_unknown_key_is_refused_by_its_name(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, {key: value})
    assert repr(key) in str(error.value)


@given(st.sampled_from(sorted(RunConfig.model_fields)), json_values)
def test_any_value_of_a_known_key_is_taken_or_refused_by_the_name_of_the_key(
    key: str, value: object
) -> None:
    try:
        load(None, {key: value})
    except ConfigError as error:
        assert key in str(error)
        assert "\n" not in str(error)


@given(st.binary(max_size=40))
def test_any_bytes_as_a_file_are_taken_or_refused_with_a_config_error(
    tmp_path_factory: Any, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    try:
        load(file, {})
    except ConfigError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "budget", ["", "-1", "8,", "1.5", "all", "²", "2147483648", [], [1.5], True, {}]
)
def test_what_is_no_budget_is_refused(budget: object) -> None:
    with pytest.raises(ConfigError, match="budget"):
        load(None, {"budget": budget})


@pytest.mark.parametrize(
    ("budget", "wanted"),
    [
        ("8,0", "0,8"),
        ("0,0,1", "0,1"),
        ("unlimited,8", "8,unlimited"),
        ([None, None], "unlimited"),
        ([2, 1], "1,2"),
    ],
)
def test_budgets_that_do_not_rise_are_refused_with_the_list_to_give(
    budget: object, wanted: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, {"budget": budget})
    assert (
        str(error.value)
        == f"budget is {budget!r}: budgets must rise strictly, unlimited last: give {wanted}"
    )


@given(st.fixed_dictionaries({}, optional={
    "budget": budgets, "threshold": st.floats(0, 0.69), "top_p": st.floats(0.01, 1),
    "seed": st.integers(0, 2**63 - 1), "direction": st.sampled_from(["forward", "reverse", "both"]),
    "out": st.just("runs/a"), "window": st.sampled_from(["32:", ":25%", "32:40", None]),
    "eos": st.sampled_from(["keep", "drop", "resample"]),
}))  # fmt: skip
def test_a_config_written_as_yaml_and_read_again_is_the_same(
    tmp_path_factory: Any, values: dict[str, Any]
) -> None:
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
    with pytest.raises(
        ConfigError, match=r"run\.yaml: unknown key 'max-tokens'; did you mean 'max_tokens'"
    ):
        load(tmp_path / "run.yaml", {})


@pytest.mark.parametrize(
    ("content", "says"),
    [("a: [", "is not YAML"), ("- 1", "holds a list"), ("8", "holds a int"), ("a: \x00", "YAML")],
)
def test_a_file_that_is_no_mapping_is_refused_with_what_it_is(
    tmp_path: Path, content: str, says: str
) -> None:
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


@pytest.mark.parametrize("name", RunConfig.model_fields)
def test_the_help_of_a_field_is_one_short_line_of_sentences(name: str) -> None:
    text = RunConfig.model_fields[name].description or ""
    assert 0 < len(text) <= 110 and "\n" not in text and "  " not in text
    assert text.endswith(".")
    assert text[0].isupper() or text.startswith("forward:")


def test_every_field_is_in_exactly_one_panel() -> None:
    names = [name for panel in PANELS.values() for name in panel]
    assert sorted(names) == sorted(RunConfig.model_fields)


def test_the_panels_are_in_the_order_in_which_a_run_is_thought_of() -> None:
    assert list(PANELS) == [
        "Models",
        "Task",
        "Intervention",
        "Sampling",
        "What is recorded",
        "Machine",
        "Output",
    ]


# The intervention: what does not go together. What each setting may be alone is in
# test_switching.py.


@pytest.fixture(scope="module")
def matched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory to be matched; its direction is forward."""
    path = tmp_path_factory.mktemp("runs") / "matched"
    settings = RunConfig(direction="forward", budget=(0, None), seed=7).model_dump(mode="json")
    RunStore.open(path, {"identity": {}, "config": settings}).close()
    return path


ILLEGAL: list[tuple[dict[str, Any], str]] = [
    ({"criterion": "always", "threshold": 0.1}, "threshold is 0.1"),
    ({"criterion": "never", "threshold": 0.1}, "threshold is 0.1"),
    ({"criterion": "argmax", "threshold": 0.1}, "threshold is 0.1"),
    ({"criterion": "random", "threshold": 0.1, "match": "RUN"}, "threshold is 0.1"),
    ({"criterion": "random"}, "criterion is 'random'"),
    ({"criterion": "random", "threshold": 1.5}, "threshold is 1.5"),
    ({"criterion": "random", "threshold": 0.0}, "threshold is 0.0"),
    ({"criterion": "js", "match": "RUN"}, "criterion is 'js'"),
    ({"match": "RUN"}, "no criterion is given"),
    ({"criterion": "kl"}, "criterion is 'kl'"),
    ({"threshold": -0.1}, "threshold is -0.1"),
    ({"threshold": 0.7}, "threshold is 0.7"),
    ({"criterion": "entropy-rl", "threshold": -1}, "threshold is -1"),
    ({"window": "5"}, "window is '5'"),
    ({"window": "-5:"}, "window is '-5:'"),
    ({"window": ":101%"}, "window is ':101%'"),
    ({"window": "8:4"}, "window is '8:4'"),
    ({"window": "64:", "max_tokens": 64}, "window is '64:' and max_tokens 64"),
    ({"extrapolate": -0.1}, "extrapolate is -0.1"),
    ({"extrapolate": 0.1}, "extrapolate is 0.1 and direction 'both'"),
    ({"extrapolate": 0.1, "direction": "reverse"}, "extrapolate is 0.1 and direction 'reverse'"),
    ({"extrapolate_to": "rl"}, "extrapolate_to is 'rl'"),
    ({"extrapolate": 0.1, "direction": "forward", "criterion": "never"}, "extrapolate is 0.1"),
    ({"criterion": "random", "match": "nowhere"}, "match is 'nowhere'"),
    ({"eos": "eat"}, "eos is 'eat'"),
    ({"trace": "half"}, "trace is 'half'"),
]


@pytest.mark.parametrize(("settings", "says"), ILLEGAL, ids=str)
def test_what_does_not_go_together_is_one_line_that_names_setting_and_value(
    matched: Path, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(None, {k: str(matched) if v == "RUN" else v for k, v in settings.items()})
    assert says in str(error.value) and "\n" not in str(error.value)


def is_legal(
    criterion: str | None, threshold: float | None, match: bool, g: float, to: str | None, way: str
) -> bool:
    """As the settings are described, in other words than engine/switching.py."""
    if match and (criterion != "random" or threshold is not None):
        return False
    if (g == 0 and to is not None) or (
        g > 0 and (criterion == "never" or (way != "forward" and to is None))
    ):
        return False
    if threshold is None:
        return match or criterion in (None, "js", "dlogp", "argmax", "always", "never")
    return {
        "js": 0 <= threshold < 0.6932,
        "dlogp": True,
        "random": 0 < threshold <= 1,
        "argmax": False,
        "always": False,
        "never": False,
    }.get(criterion or "js", threshold >= 0)


@given(st.fixed_dictionaries({}, optional={
    "criterion": st.sampled_from(get_args(CriterionName)),
    "threshold": st.sampled_from([-0.3, 0.0, 0.1, 1.0, 2.0]), "match": st.just("RUN"),
    "extrapolate": st.sampled_from([0.0, 0.1]), "extrapolate_to": st.sampled_from(["base", "rl"]),
    "direction": st.sampled_from(["forward", "reverse", "both"]),
    "window": st.sampled_from([":", "8:", "10%:64"]),
    "eos": st.sampled_from(["keep", "drop", "resample"]),
    "budget": st.sampled_from([0, 8, "0,8,unlimited"]),
}))  # fmt: skip
def test_any_combination_is_taken_or_refused_with_one_line_that_names_a_given_setting(
    matched: Path, settings: dict[str, Any]
) -> None:
    values = settings | ({"match": str(matched)} if "match" in settings else {})
    way = settings.get("direction", "forward" if "match" in settings else "both")
    criterion, threshold, to = (
        settings.get(name) for name in ("criterion", "threshold", "extrapolate_to")
    )
    if is_legal(
        criterion, threshold, "match" in settings, settings.get("extrapolate", 0.0), to, way
    ):
        assert isinstance(load(None, values).rule(128, (0,)), Rule)
    else:
        with pytest.raises(ConfigError) as error:
            load(None, values)
        assert "\n" not in str(error.value) and any(name in str(error.value) for name in settings)


def test_the_rule_holds_what_was_left_out_as_what_it_means() -> None:
    assert load(None, {}).rule(128, (3, 4)) == Rule("js", 0.1, 0, 128, stop_token_ids=(3, 4))
    settings = {
        "criterion": "dlogp",
        "window": "10%:50%",
        "eos": "drop",
        "extrapolate": 0.05,
        "direction": "forward",
    }
    rule = load(None, settings | {"trace": "full"}).rule(100, (3,))
    assert rule == Rule("dlogp", -0.3, 10, 50, "drop", 0.05, "rl", (3,), "full")


def test_a_window_beyond_a_cap_that_the_task_sets_is_refused_when_the_cap_is_known() -> None:
    config = load(None, {"window": "192:"})
    assert config.rule(193, ()).start == 192
    with pytest.raises(
        ConfigError, match="window is '192:' and max_tokens 192: it begins beyond the cap"
    ):
        config.rule(192, ())


def test_a_window_that_yaml_took_for_a_number_is_refused_with_the_quotes_to_give(
    tmp_path: Path,
) -> None:
    (tmp_path / "run.yaml").write_text("window: 32:40\n")
    with pytest.raises(ConfigError, match=r'window is 1960: .* in quotes: .*"32:40"'):
        load(tmp_path / "run.yaml", {})


# Settings of another run


def test_a_match_brings_the_settings_of_its_run_along_beneath_file_and_options(
    matched: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text(f"match: {matched}\nbudget: [0]\n")
    config = load(tmp_path / "run.yaml", {"criterion": "random", "samples": 2})
    assert (config.direction, config.seed, config.budget, config.samples) == ("forward", 7, (0,), 2)
    assert config.match == matched


def test_what_lies_beneath_yields_to_the_file_and_to_the_options(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("samples: 4\nlimit: 4\n")
    config = load(tmp_path / "run.yaml", {"limit": 3}, {"seed": 1, "samples": 1, "limit": 1})
    assert (config.seed, config.samples, config.limit) == (1, 4, 3)


@pytest.mark.parametrize("match", ["", "a\nb", "a\0b", "x" * 5000, "\ud800"])
def test_a_match_that_is_no_run_is_one_line(match: str) -> None:
    with pytest.raises(ConfigError, match="match is ") as error:
        load(None, {"criterion": "random", "match": match})
    assert "\n" not in str(error.value)
