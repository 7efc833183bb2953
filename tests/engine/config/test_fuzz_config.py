"""Configuration files and options of strangers: taken, or refused in one line, whatever YAML can
say.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from engine.config.run_config import RunConfig
from engine.run.settings import load
from tests.support.fuzzing import cases, damaged, depths, judged, quiet, run, scalars, texts, values

pytestmark = quiet

KEYS = st.sampled_from([*RunConfig.model_fields, "max-tokens", "<<", "=", "null", "1"])
TAGS = [
    "!!python/object:os.system",
    "!!python/object/apply:os.system",
    "!!int",
    "!!float",
    "!!bool",
    "!!binary",
    "!!set",
    "!!timestamp",
    "!!omap",
    "!!pairs",
    "!!map",
    "!!seq",
    "!!str",
    "!!null",
    "!local",
    "!<tag:a,b:c>",
]
ODD = [
    "2001-99-99", "2001-01-01 99:99:99", "0x" + "f" * 4_000, "0b", "0x_", "1" * 5_000,
    "1:1" + ":59" * 500, "+.inf", ".nan", "~", "=", "<<", "*a", "&a", "|", ">", "'", "? ", "- ",
    "%YAML 9.9", "---", "...", "\t", "@", "`", "!", "0o7",
]  # fmt: skip


def nested(deep: tuple[int, str]) -> str:
    """Brackets in brackets, closed where their pair is given."""
    depth, bracket = deep
    return "".join(side * depth for side in bracket) if bracket in ("[]", "{}") else bracket * depth


plain = st.sampled_from(ODD) | st.text("abc01:-_.,[]{}&*!|>'\"%@#? \n\t", max_size=12)
written = (
    values.map(lambda value: json.dumps(value))
    | plain
    | st.tuples(st.sampled_from(TAGS), plain | st.sampled_from(["x", "[1]", "{a: b}", ""])).map(
        " ".join
    )
    | st.tuples(depths, st.sampled_from(["[", "{a: ", "- ", "? ", "[]", "{}"])).map(nested)
)
lines = st.tuples(KEYS, written).map(": ".join)
files = st.lists(lines, max_size=5).map("\n".join)
VALID = yaml.safe_dump(
    {"seed": 3, "budget": [0, 8, None], "window": "32:40", "top_p": 0.9, "eos": "drop"}
).encode()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


def loaded(own: Path, content: bytes) -> RunConfig | None:
    (own / "run.yaml").write_bytes(content)
    return judged(lambda: load(own / "run.yaml", {}), own)


@cases(120, 0.4)
@given(text=files)
def test_whatever_yaml_says_it_is_taken_or_refused_in_one_line(own: Path, text: str) -> None:
    loaded(own, text.encode("utf-8", "surrogatepass"))


@cases(200, 0.2)
@given(content=damaged(VALID) | st.binary(max_size=60))
def test_damaged_files_are_taken_or_refused_in_one_line(own: Path, content: bytes) -> None:
    loaded(own, content)


@cases(150, 0.3)
@given(given_values=st.dictionaries(KEYS, values, max_size=4))
def test_values_of_any_type_are_taken_or_refused_in_one_line(
    own: Path, given_values: dict[str, Any]
) -> None:
    judged(lambda: load(None, given_values), own)


def as_argument(text: str) -> str:
    """As Python has it from a shell: bytes that are no UTF-8 as surrogates of their own, and no
    null byte.
    """
    return (
        text.replace("\0", "").encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    )


OPTIONS = st.sampled_from(
    [f"--{name.replace('_', '-')}" for name in RunConfig.model_fields] + ["--config"]
)
arguments = st.lists(
    st.tuples(OPTIONS, texts | scalars.map(str).filter(lambda text: len(text) < 1_000)), max_size=3
)


@cases(30, 0.1)
@given(command=st.sampled_from(["run", "score"]), options=arguments)
def test_options_are_taken_or_refused_in_one_line(
    own: Path, command: str, options: list[tuple[str, str]]
) -> None:
    args = [as_argument(text) for option in options for text in option]
    run(
        [command, *args, "--dry-run", *([str(own / "given.jsonl")] if command == "score" else [])],
        own,
    )
