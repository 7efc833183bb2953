"""Preflight: every model that cannot be used is refused in one line that names the option, the
value and the way out.

The models here are real folders made on the spot: a config.json, a word-level tokenizer and a
safetensors file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models

from engine.errors import ConfigError, ModelError
from engine.models.checkpoint import open_checkpoint
from engine.models.memory import estimate_memory
from engine.models.pair_info import TINY_PAIR, PairInfo, inspect_pair
from engine.models.prompt import check_prompts
from engine.run.settings import load
from tests.support.paths import ROOT

WORDS = ["<s>", "</s>", "one", "two", "three"]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 8,
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "eos_token_id": 1,
    "dtype": "bfloat16",
}


def make_model(folder: Path, words: list[str] = WORDS, weights: int = 100, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | config))
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0])
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": words[1]})
    )
    save_file({"w": np.arange(weights, dtype=np.float32)}, folder / "model.safetensors")
    return folder


def write_json(file: Path, **values: Any) -> None:
    old = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(old | values))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_model(tmp_path / "base"), make_model(tmp_path / "rl")


def inspect(pair: tuple[Path, Path], trust_remote_code: bool = False) -> PairInfo:
    return inspect_pair(str(pair[0]), str(pair[1]), trust_remote_code)


def refusal(pair: tuple[Path, Path]) -> str:
    with pytest.raises(ModelError) as error:
        inspect(pair)
    assert "\n" not in str(error.value)
    return str(error.value)


# A pair that can be used


def test_the_embedded_pair_is_a_pair() -> None:
    info = inspect_pair(None, None, False)
    assert (info.base, info.rl) == (str(TINY_PAIR / "base"), str(TINY_PAIR / "rl"))
    assert info.tokenizer.chat_template
    assert info.tokenizer.eos_token_id in info.stop_token_ids
    assert info.base_fingerprint != info.rl_fingerprint


def test_a_pair_is_described_by_its_files(pair: tuple[Path, Path]) -> None:
    info = inspect(pair)
    assert (info.base, info.rl) == (str(pair[0]), str(pair[1]))
    assert (info.vocab_size, info.context_length, info.dtype) == (8, 64, "bfloat16")
    assert info.base_weight_bytes == (pair[0] / "model.safetensors").stat().st_size
    assert info.rl_kv_numbers == 2 * 3 * 2 * (16 // 4)


def test_a_relative_folder_becomes_absolute_because_workers_have_their_own(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pair[0].parent)
    assert inspect((Path("base"), Path("rl"))).base == str(pair[0])


def test_the_stop_tokens_are_those_of_both_models_from_every_place(pair: tuple[Path, Path]) -> None:
    write_json(pair[0] / "config.json", eos_token_id=2)
    write_json(pair[1] / "generation_config.json", eos_token_id=[3, 4])
    assert inspect(pair).stop_token_ids == (1, 2, 3, 4)


def test_a_pair_without_any_eos_is_refused(pair: tuple[Path, Path]) -> None:
    for folder in pair:
        write_json(folder / "config.json", eos_token_id=None)
        (folder / "tokenizer_config.json").write_text(
            '{"tokenizer_class": "PreTrainedTokenizerFast"}'
        )
    assert "eos_token_id" in refusal(pair)


def test_the_context_is_the_shorter_of_both(pair: tuple[Path, Path]) -> None:
    write_json(pair[0] / "config.json", max_position_embeddings=48)
    assert inspect(pair).context_length == 48


def test_logits_padded_to_another_length_are_no_difference_and_the_shorter_counts(
    pair: tuple[Path, Path],
) -> None:
    write_json(pair[1] / "config.json", vocab_size=128)
    assert inspect(pair).vocab_size == 8


# A model that cannot be used


@pytest.mark.parametrize("setting", ["base", "rl"])
def test_a_path_that_does_not_exist_is_named_with_its_option(
    pair: tuple[Path, Path], setting: str
) -> None:
    given = dict(zip(("base", "rl"), map(str, pair), strict=True)) | {setting: "/no/such/model"}
    with pytest.raises(ModelError, match=f"--{setting} /no/such/model does not exist"):
        inspect_pair(given["base"], given["rl"], False)


def test_a_folder_without_config_is_refused(pair: tuple[Path, Path]) -> None:
    (pair[1] / "config.json").unlink()
    assert f"--rl {pair[1]} holds no config.json" in refusal(pair)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_config_that_is_no_json_object_is_refused(pair: tuple[Path, Path], content: str) -> None:
    (pair[0] / "config.json").write_text(content)
    assert "config.json cannot be read" in refusal(pair)


def test_a_gguf_file_and_a_folder_of_them_are_refused(pair: tuple[Path, Path]) -> None:
    (pair[0] / "config.json").rename(pair[0] / "model.gguf")
    assert "GGUF" in refusal(pair)
    assert "GGUF" in refusal((pair[0] / "model.gguf", pair[1]))


def test_an_adapter_is_refused_with_or_without_a_config(pair: tuple[Path, Path]) -> None:
    (pair[1] / "adapter_config.json").write_text("{}")
    (pair[1] / "model.safetensors").rename(pair[1] / "adapter_model.safetensors")
    assert "is an adapter: merge it" in refusal(pair)
    (pair[1] / "config.json").unlink()
    assert "is an adapter: merge it" in refusal(pair)


@pytest.mark.parametrize(
    "architectures", [["BertForMaskedLM"], [], None, ["LlamaForSequenceClassification"]]
)
def test_a_model_that_is_not_causal_is_refused_with_what_it_is(
    pair: tuple[Path, Path], architectures: Any
) -> None:
    write_json(pair[0] / "config.json", architectures=architectures)
    assert (
        f"is not a causal language model: its config.json says architectures {architectures or []}"
        in refusal(pair)
    )


def test_pickled_weights_are_refused(pair: tuple[Path, Path]) -> None:
    (pair[0] / "model.safetensors").rename(pair[0] / "pytorch_model.bin")
    assert "pickled weights only" in refusal(pair)


def test_a_folder_without_weights_is_refused(pair: tuple[Path, Path]) -> None:
    (pair[0] / "model.safetensors").unlink()
    assert "holds no safetensors weights" in refusal(pair)


def test_a_shard_that_its_index_names_but_is_not_there_is_named(pair: tuple[Path, Path]) -> None:
    write_json(pair[1] / "model.safetensors.index.json", weight_map={"w": "model-2.safetensors"})
    assert "model-2.safetensors is in its index but not in the folder" in refusal(pair)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"]
)
def test_a_git_lfs_pointer_in_place_of_weights_is_refused(
    pair: tuple[Path, Path], content: bytes
) -> None:
    (pair[1] / "model.safetensors").write_bytes(content)
    assert (
        "model.safetensors is not a safetensors file; fetch it again (git: `git lfs pull`)"
        in refusal(pair)
    )


def test_a_weight_file_that_is_too_short_is_refused_with_both_sizes(
    pair: tuple[Path, Path],
) -> None:
    file = pair[0] / "model.safetensors"
    size = file.stat().st_size
    os.truncate(file, size - 4)
    assert f"has {size - 4} bytes, its header says {size}" in refusal(pair)


def test_a_folder_without_a_tokenizer_is_refused(pair: tuple[Path, Path]) -> None:
    (pair[1] / "tokenizer.json").unlink()
    assert "holds no tokenizer" in refusal(pair)


def test_a_tokenizer_that_cannot_be_read_is_refused(pair: tuple[Path, Path]) -> None:
    (pair[1] / "tokenizer.json").write_text("{}")
    assert f"--rl {pair[1]} has a tokenizer that transformers cannot read" in refusal(pair)


def test_an_unknown_model_type_is_refused(pair: tuple[Path, Path]) -> None:
    write_json(pair[0] / "config.json", model_type="from_the_future")
    assert f"--base {pair[0]} has a config.json that transformers cannot read" in refusal(pair)


def test_a_model_with_its_own_code_runs_only_when_it_is_trusted(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(
        dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules")
    )  # not in the user's home
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = (
        "from transformers import LlamaConfig\nclass OwnConfig(LlamaConfig):\n    model_type ="
        " 'own'\n"
    )
    for folder in pair:
        write_json(
            folder / "config.json",
            model_type="own",
            auto_map={"AutoConfig": "configuration_own.OwnConfig"},
        )
        (folder / "configuration_own.py").write_text(code)
    assert "give --trust-remote-code" in refusal(pair)
    assert inspect(pair, trust_remote_code=True).vocab_size == 8


def test_code_that_a_known_model_type_brings_along_is_neither_needed_nor_run(
    pair: tuple[Path, Path],
) -> None:
    write_json(pair[0] / "config.json", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    (pair[0] / "configuration_own.py").write_text("raise SystemExit('I was run')")
    assert inspect(pair).vocab_size == 8


# Two models that are no pair


def test_the_first_token_that_differs_is_named_in_both(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    rl = make_model(tmp_path / "rl", [*WORDS[:3], "zwei", "drei"])
    assert "token id 3 is 'two' in the base model and 'zwei' in the RL model" in refusal((base, rl))


def test_a_token_that_only_one_model_has_is_named(tmp_path: Path) -> None:
    base, rl = make_model(tmp_path / "base"), make_model(tmp_path / "rl", [*WORDS, "four"])
    assert "token id 5 is nothing in the base model and 'four' in the RL model" in refusal(
        (base, rl)
    )


def test_an_added_token_counts_as_part_of_the_vocabulary(pair: tuple[Path, Path]) -> None:
    tokenizer = Tokenizer.from_file(str(pair[1] / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_start|>"])
    tokenizer.save(str(pair[1] / "tokenizer.json"))
    assert "token id 5 is nothing in the base model and '<|im_start|>' in the RL model" in refusal(
        pair
    )


# Fingerprints


def fingerprint(folder: Path) -> str:
    return open_checkpoint("--rl", str(folder)).fingerprint


def test_a_copy_has_the_same_fingerprint(pair: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(pair[0], tmp_path / "copy")
    assert fingerprint(pair[0]) == fingerprint(tmp_path / "copy")


@pytest.mark.parametrize("where", [0.0, 0.5, 1.0])
def test_weights_that_differ_anywhere_in_a_small_file_have_another_fingerprint(
    tmp_path: Path, where: float
) -> None:
    folder = make_model(tmp_path / "m", weights=5000)
    before = fingerprint(folder)
    weights = np.arange(5000, dtype=np.float32)
    weights[int(where * 4999)] += 1
    save_file({"w": weights}, folder / "model.safetensors")
    assert fingerprint(folder) != before


def test_a_large_file_whose_ends_stay_the_same_still_has_another_fingerprint(
    tmp_path: Path,
) -> None:
    folder = make_model(tmp_path / "m", weights=4 << 20)
    before = fingerprint(folder)
    weights = np.arange(4 << 20, dtype=np.float32)
    weights[1 << 20 : 3 << 20] += 1
    save_file({"w": weights}, folder / "model.safetensors")
    assert fingerprint(folder) != before


def test_another_config_is_another_fingerprint(pair: tuple[Path, Path]) -> None:
    before = fingerprint(pair[0])
    write_json(pair[0] / "config.json", rope_theta=5e5)
    assert fingerprint(pair[0]) != before


# The hub: a real HTTP server that answers as the hub does


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        gated = "gated" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def hub_refusal(model: str, tmp_path: Path, **env: str) -> str:
    code = f"""
from engine.models.checkpoint import open_checkpoint
from engine.errors import ModelError
try:
    open_checkpoint("--rl", {model!r})
except ModelError as error:
    print(error)
"""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(tmp_path),
        "no_proxy": "127.0.0.1",
    } | env
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert run.stdout.count("\n") == 1, run.stderr
    return run.stdout


def test_a_gated_model_says_how_to_get_in(hub: str, tmp_path: Path) -> None:
    message = hub_refusal("org/gated", tmp_path, HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    assert "--rl org/gated is gated: accept its licence" in message
    assert "`hf auth login`" in message


def test_a_model_that_the_hub_does_not_have_is_said_to_be_neither_here_nor_there(
    hub: str, tmp_path: Path
) -> None:
    message = hub_refusal("org/none", tmp_path, HF_ENDPOINT=hub, HF_HUB_OFFLINE="0")
    assert "--rl org/none is no folder here and not on the Hugging Face Hub" in message


@pytest.mark.parametrize(
    "env", [{"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_without_the_hub_a_model_id_says_how_to_download_it(
    tmp_path: Path, env: dict[str, str]
) -> None:
    message = hub_refusal("org/model", tmp_path, **env)
    assert "--rl org/model is no folder here and cannot be fetched" in message
    assert "`hf download org/model`" in message


# Prompts


PROMPTS = {"p1": [2] * 10, "p2": [2] * 30}


def test_the_context_to_use_is_the_longest_prompt_and_the_response() -> None:
    assert check_prompts(PROMPTS, 20, None, 64, 8) == 50


def test_a_context_that_was_asked_for_is_used() -> None:
    assert check_prompts(PROMPTS, 20, 60, 64, 8) == 60


def test_a_response_that_just_fits_is_accepted_and_one_token_more_is_not() -> None:
    assert check_prompts(PROMPTS, 34, None, 64, 8) == 64
    with pytest.raises(
        ConfigError,
        match=r"max_tokens 35 does not fit.*'p2' has 30.*context of 64.*--max-tokens 34",
    ):
        check_prompts(PROMPTS, 35, None, 64, 8)
    with pytest.raises(ConfigError, match=r"max_model_len 50 holds both; give --max-tokens 20"):
        check_prompts(PROMPTS, 21, 50, 64, 8)


def test_a_prompt_that_fills_the_context_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"problem 'p2': its prompt has 30 tokens.*context of 30.*no room"
    ):
        check_prompts(PROMPTS, 1, None, 30, 8)


def test_more_context_than_the_pair_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_model_len 65 is more than the pair's context of 64"):
        check_prompts(PROMPTS, 1, 65, 64, 8)


def test_a_prompt_with_a_token_that_no_model_has_is_named() -> None:
    with pytest.raises(
        ModelError, match=r"problem 'p2': its prompt holds token id 2, the models end at 1"
    ):
        check_prompts({"p2": [2]}, 1, None, 64, 2)


# Memory, on the CPU


def test_the_kv_cache_of_a_sequence_is_its_numbers_times_their_size(
    pair: tuple[Path, Path],
) -> None:
    config = load(None, {"device": "cpu", "dtype": "float32"})
    assert estimate_memory(inspect(pair), config, 100).kv_per_sequence == 2 * 3 * 2 * 4 * 4 * 100


def test_weights_run_in_a_wider_type_need_more(pair: tuple[Path, Path]) -> None:
    info = inspect(pair)
    sizes = [
        estimate_memory(info, load(None, {"device": "cpu", "dtype": d}), 64).weights
        for d in ("auto", "float32")
    ]
    assert sizes == [
        info.base_weight_bytes + info.rl_weight_bytes,
        2 * (info.base_weight_bytes + info.rl_weight_bytes),
    ]


def test_weights_that_cannot_fit_are_refused(pair: tuple[Path, Path]) -> None:
    huge = replace(inspect(pair), rl_weight_bytes=1 << 60)
    with pytest.raises(
        ModelError,
        match=r"--base and --rl need .* GiB for their weights on this machine, which has",
    ):
        estimate_memory(huge, load(None, {"device": "cpu"}), 64)


def test_a_kv_cache_too_small_for_one_sequence_is_a_warning_with_a_size_that_does(
    pair: tuple[Path, Path],
) -> None:
    config = load(None, {"device": "cpu", "kv_cache_gib": 0.001})
    warning = estimate_memory(
        replace(inspect(pair), rl_kv_numbers=1 << 20), config, 1 << 10
    ).warning
    assert warning and "give --kv-cache-gib 2.1" in warning


def test_a_kv_cache_larger_than_memory_is_a_warning(pair: tuple[Path, Path]) -> None:
    config = load(None, {"device": "cpu", "kv_cache_gib": 1e6})
    warning = estimate_memory(inspect(pair), config, 64).warning
    assert warning and "give a smaller --kv-cache-gib" in warning


def test_the_embedded_pair_with_the_defaults_needs_no_warning() -> None:
    assert (
        estimate_memory(inspect_pair(None, None, False), load(None, {"device": "cpu"}), 256).warning
        is None
    )
