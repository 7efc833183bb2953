"""Model folders of strangers: used, or refused in one line; nothing in them runs, and nothing is
unpickled.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.models.pair_info import TINY_PAIR
from tests.support.fuzzing import (
    NUM_CASES,
    altered,
    cases,
    damaged,
    depths,
    numbers,
    quiet,
    run,
    texts,
    values,
)

pytestmark = quiet

JSON_FILES = ["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"]
ENDLESS = [  # the first and the last do not come back to Python
    "{{ 10 ** (10 ** 10) }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    (
        "{% set a = namespace(x='1') %}"
        "{% for i in range(99999) %}{% set a.x = a.x ~ a.x %}{% endfor %}"
    ),
    "{{ 10 ** (10 ** 9) }}",
]
TEMPLATES = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ messages.__class__.__mro__ }}",
    "{{ ''.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.system('touch canary') }}",
    "{{ lipsum.__globals__['os'].system('touch canary') }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{{ messages.append(1) }}",
    "{{ 'a' * 10**12 }}",
    "{{ ('%1000000000d' % 1) | length }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ raise_exception('no\nno') }}",
    "{{ 1 / 0 }}",
    "{{ messages[0]['content'] }}",
    "{{ messages[7].content.x.y }}",
    "{% if",
    "{{",
    "",
    "x" * 100_000,
    "{{ '\x1b[2J' }}{{ messages[0].content }}",
    "{{ strftime_now('%Y' * 100) }}",
]
CANARY = "open({path!r}, 'w').close()\n"
PICKLE = b"cos\nsystem\n(S'touch canary'\ntR."


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def in_own_folder(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own)


def model(own: Path) -> Path:
    """A copy of the embedded RL model; its weights are a link, as in the hub's cache."""
    folder = own / "model"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in (TINY_PAIR / "rl").iterdir():
        if file.suffix == ".safetensors":
            (folder / file.name).symlink_to(file)
        else:
            shutil.copy(file, folder)
    return folder


def checked(own: Path, folder: Path) -> None:
    """As `xsample run` checks a pair, both ways round; nothing but the folder came into being."""
    tiny = str(TINY_PAIR / "base")
    for base, rl in ((tiny, str(folder)), (str(folder), tiny)):
        run(
            ["run", "--base", base, "--rl", rl, "--limit", "1", "--device", "cpu", "--dry-run"], own
        )
    assert set(os.listdir(own)) <= {"model", "temporary", "outside.safetensors"}, os.listdir(own)


@cases(30, 0.35)
@given(name=st.sampled_from(JSON_FILES), data=st.data())
def test_descriptions_with_anything_in_them_are_used_or_refused(
    own: Path, name: str, data: st.DataObject
) -> None:
    folder = model(own)
    content = (folder / name).read_bytes()
    if data.draw(st.integers(0, 3)):
        described = json.loads(content)
        for _ in range(data.draw(st.integers(1, 2))):
            described = data.draw(altered(described))
        (folder / name).write_text(json.dumps(described), encoding="utf-8")
    else:
        (folder / name).write_bytes(data.draw(damaged(content)))
    checked(own, folder)


KEYS = st.sampled_from(
    [
        "architectures",
        "model_type",
        "vocab_size",
        "hidden_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "num_hidden_layers",
        "max_position_embeddings",
        "eos_token_id",
        "dtype",
        "torch_dtype",
        "rope_scaling",
        "auto_map",
        "quantization_config",
        "text_config",
        "layer_types",
        "tie_word_embeddings",
    ]
)


@cases(30, 0.25)
@given(changes=st.dictionaries(KEYS, values | numbers, min_size=1, max_size=3))
def test_settings_of_a_model_of_any_type_are_used_or_refused(
    own: Path, changes: dict[str, Any]
) -> None:
    folder = model(own)
    config = json.loads((folder / "config.json").read_bytes()) | changes
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    checked(own, folder)


PATHS = [
    "model.safetensors",
    "../outside.safetensors",
    "/etc/passwd",
    "..",
    ".",
    "",
    "a\0b.safetensors",
    "config.json",
]
names = st.sampled_from(PATHS) | values


@cases(30, 0.15)
@given(
    index=st.fixed_dictionaries({"weight_map": st.dictionaries(texts, names, max_size=4) | values})
    | values
)
def test_an_index_that_points_anywhere_is_used_or_refused(own: Path, index: Any) -> None:
    folder = model(own)
    shutil.copy(TINY_PAIR / "rl" / "model.safetensors", own / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    checked(own, folder)


offsets = st.lists(numbers | st.none() | texts, max_size=3) | values
tensor = (
    st.fixed_dictionaries(
        {"dtype": st.just("F32") | values, "shape": values, "data_offsets": offsets}
    )
    | values
)
headers = st.dictionaries(st.just("__metadata__") | texts, tensor, max_size=3).map(json.dumps)
lengths = st.sampled_from([0, 1, 8, 2**31, 2**32, 2**63, 2**64 - 1])


@cases(40, 0.2)
@given(
    header=headers | depths.map(lambda depth: '{"a":' * depth) | texts,
    length=st.none() | lengths,
    size=st.integers(0, 200),
)
def test_weights_whose_header_lies_are_used_or_refused(
    own: Path, header: str, length: int | None, size: int
) -> None:
    folder = model(own)
    content = header.encode("utf-8", "surrogatepass")
    said = len(content) if length is None else length
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(said.to_bytes(8, "little") + content + bytes(size))
    checked(own, folder)


@cases(10, 0.05)
@given(template=st.sampled_from(TEMPLATES) | st.text("{}%#'\"-messages[0].content x|", max_size=30))
def test_a_chat_template_of_any_kind_is_rendered_or_refused(own: Path, template: str) -> None:
    folder = model(own)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    checked(own, folder)


@pytest.mark.parametrize("template", ENDLESS if NUM_CASES else ENDLESS[:1])
def test_a_chat_template_without_end_is_refused(own: Path, template: str) -> None:
    folder = model(own)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    done = run(
        [
            "run",
            "--base",
            str(TINY_PAIR / "base"),
            "--rl",
            str(folder),
            "--limit",
            "1",
            "--dry-run",
        ],
        own,
    )
    assert done.exit_code == 2 and "chat template that cannot be rendered: " in done.stderr, (
        done.output
    )


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.ckpt", "model.pth", "model.pkl"]
)
def test_pickled_weights_are_refused_by_what_they_are_and_never_opened(
    own: Path, name: str
) -> None:
    folder = model(own)
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(PICKLE)
    (folder / name).chmod(0)
    done = run(["run", "--base", str(folder), "--rl", str(TINY_PAIR / "rl"), "--dry-run"], own)
    assert done.exit_code == 2 and "pickled weights" in done.stderr, done.output


AUTO_MAPS = {
    "config.json": {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        "model_type": "evil",
    },
    "tokenizer_config.json": {
        "auto_map": {"AutoTokenizer": ["evil.Tokenizer", None]},
        "tokenizer_class": "Tokenizer",
    },
}


@pytest.mark.parametrize("name", AUTO_MAPS)
def test_code_of_a_model_does_not_run_unless_it_is_trusted(own: Path, name: str) -> None:
    folder = model(own)
    (folder / "evil.py").write_text(CANARY.format(path=str(own / "canary")))
    described = json.loads((folder / name).read_bytes()) | AUTO_MAPS[name]
    (folder / name).write_text(json.dumps(described))
    checked(own, folder)
    done = run(["run", "--base", str(TINY_PAIR / "base"), "--rl", str(folder), "--dry-run"], own)
    assert name != "config.json" or "--trust-remote-code" in done.stderr, done.output
