"""Arguments that users add to vLLM's: read alike from options and files, and refused by name where
lock-step needs another value.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from engine.config import engine_args as module
from engine.config.engine_args import engine_args, parse_engine_args
from engine.config.run_config import RunConfig
from engine.errors import ConfigError
from engine.lockstep.vllm_engine import check_names
from engine.run.settings import load
from xsample.cli.main import commands

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("quantization=fp8", "fp8"),
        ("enable_expert_parallel=true", True),
        ("--block-size=32", 32),
        ("attention_backend=TRITON_ATTN", "TRITON_ATTN"),
        ('hf_overrides={"max_position_embeddings": 65536}', {"max_position_embeddings": 65536}),
        ("revision=a=b", "a=b"),
        ("load_format=", None),
    ],
)
def test_a_value_is_read_as_yaml(text: str, value: object) -> None:
    [[_, read]] = engine_args(parse_engine_args(text, may_differ=False)).items()
    assert read == value


@given(st.dictionaries(st.sampled_from(sorted(module.MAY_DIFFER)), json_values))
def test_a_mapping_and_what_it_is_stored_as_are_read_alike(given_args: dict[str, Any]) -> None:
    texts = parse_engine_args(given_args, may_differ=True)
    assert engine_args(texts) == given_args
    assert parse_engine_args(list(texts), may_differ=True) == texts


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("quantization", "has no value: give KEY=VALUE"),
        ("max_model_len=100", "is set by xsample: give --max-model-len"),
        ("async_scheduling=true", "lock-step: the next step depends on the tokens of this one"),
        ("data_parallel_size=2", "lock-step: an engine is one replica"),
        (["block_size=16", "block-size=32"], "block_size is given twice"),
        ("reasoning_parser_plugin=x.py", "names code that vLLM would run"),
        ("a b=1", "is no argument of vLLM"),
        ("block_size=[1", "neither JSON nor a word"),
        ("block_size=2020-01-01", "neither JSON nor a word"),
        (3, "no list of KEY=VALUE"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_engine_args(value, may_differ=False)


def test_what_must_be_equal_is_refused_for_one_engine() -> None:
    with pytest.raises(ConfigError, match="block_size must be the same for both engines"):
        load(None, {"rl_engine_arg": ("block_size=32",)})
    config = load(None, {"engine_arg": ("block_size=32",), "rl_engine_arg": ("quantization=fp8",)})
    assert config.engine_args("base") == {"block_size": 32}
    assert config.engine_args("rl") == {"block_size": 32, "quantization": "fp8"}


def test_a_file_gives_them_as_a_mapping(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("engine_arg: {hf_overrides: {rope_theta: 500000.0}}\n")
    assert load(file, {}).engine_args("base") == {"hf_overrides": {"rope_theta": 500000.0}}
    assert load(file, {}) == RunConfig(engine_arg=('hf_overrides={"rope_theta": 500000.0}',))


def test_vllm_knows_every_argument_that_is_named_here() -> None:
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in fields(EngineArgs)}
    newer_or_older = {"quantization_config", "scheduling_policy"}
    assert module.MAY_DIFFER - known <= newer_or_older
    with pytest.raises(
        ConfigError, match="no argument 'quantisation'; did you mean 'quantization'"
    ):
        check_names({"quantisation": "fp8"})


def test_a_wrong_name_is_one_line_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(commands, ["run", "--engine-arg", "attention_backnd=X"])
    assert done.exit_code == 2
    assert "did you mean 'attention_backend'" in done.stderr
    assert list(tmp_path.iterdir()) == []
