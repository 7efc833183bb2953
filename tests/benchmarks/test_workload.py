"""What the benchmarks give to a pair: random models that look like language models, and work of the
size asked for.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks.floor import bandwidth, mean_context
from benchmarks.models import RandomPair, Shape, fill, make_pair, num_weights, read_shape
from benchmarks.workload import (
    NUM_PROMPT_TOKENS,
    add_options,
    kv_bytes_per_token,
    make_workload,
    random_jobs,
    weight_bytes,
    with_random_pair,
)
from engine.arrays import Floats
from engine.sampling.distribution import Nuclei, Sampling, js_divergence, log_probabilities, nuclei

TINY = Shape(2000, 64, 192, 3, 4, 2, max_position_embeddings=128)
PROMPTS, STEPS = 32, 16


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> RandomPair:
    return make_pair(TINY, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def log_p(pair: RandomPair) -> dict[str, torch.Tensor]:
    """Log-probabilities of both models along samples of the base: [prompts x steps, V]."""
    models = {"base": pair.base, "rl": pair.rl}
    loaded = {
        name: AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        for name, folder in models.items()
    }
    tokens = torch.randint(
        TINY.vocab_size, (PROMPTS, NUM_PROMPT_TOKENS), generator=torch.Generator().manual_seed(0)
    )
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for _ in range(STEPS):
            p = loaded["base"](tokens).logits[:, -1].float().softmax(-1)
            tokens = torch.cat((tokens, torch.multinomial(p, 1, generator=generator)), 1)
        found = {
            name: model(tokens).logits[:, NUM_PROMPT_TOKENS:] for name, model in loaded.items()
        }
    return {name: log_probabilities(logits.flatten(0, 1)) for name, logits in found.items()}


def nuclei_of(log_p: torch.Tensor, top_p: float) -> Nuclei:
    return nuclei(log_p, Sampling(1.0, top_p))


def divergences(log_p: dict[str, torch.Tensor]) -> Floats:
    return js_divergence(nuclei_of(log_p["base"], 0.7), nuclei_of(log_p["rl"], 0.7))


@pytest.mark.parametrize("top_p", [0.7, 0.95])
def test_most_nuclei_of_a_random_model_hold_one_to_a_few_tokens(
    log_p: dict[str, torch.Tensor], top_p: float
) -> None:
    size = nuclei_of(log_p["base"], top_p).size
    assert np.median(size) <= 4
    assert np.quantile(size, 0.9) <= 16
    assert (size > 1).mean() > 0.1


def test_a_random_pair_parts_at_some_per_cent_of_positions(log_p: dict[str, torch.Tensor]) -> None:
    assert 0.01 < (divergences(log_p) > 0.1).mean() < 0.2


def test_a_random_model_does_not_repeat_its_last_token(log_p: dict[str, torch.Tensor]) -> None:
    top1 = nuclei_of(log_p["base"], 0.7).top1.reshape(PROMPTS, -1)
    assert (top1[:, 1:] == top1[:, :-1]).mean() < 0.2


def test_a_pair_is_made_once(pair: RandomPair) -> None:
    made = (pair.base / "model.safetensors").stat().st_mtime_ns
    assert make_pair(TINY, pair.base.parents[1]) == pair
    assert (pair.base / "model.safetensors").stat().st_mtime_ns == made


def test_another_shape_or_noise_is_another_pair(pair: RandomPair) -> None:
    assert make_pair(replace(TINY, noise=0.5), pair.base.parents[1]).base != pair.base


def test_nothing_unfinished_is_left_beside_a_pair(pair: RandomPair) -> None:
    assert all(
        (folder / "rl" / "model.safetensors").is_file() for folder in pair.base.parents[1].iterdir()
    )


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(arguments)


def test_a_pair_of_engines_takes_random_models_and_never_samples_their_stop_token(
    pair: RandomPair,
) -> None:
    config = with_random_pair(
        make_workload(options("--sequences", "1")).config, pair, slots=4, length=20
    )
    for policy, model in (("base", pair.base), ("rl", pair.rl)):
        worker = config.workers[policy]
        assert worker.engine_args["model"] == str(model)
        assert worker.stop_token_ids == (worker.sampler.vocab_size,) == (TINY.vocab_size - 1,)


def test_the_kv_cache_holds_all_that_is_in_flight(pair: RandomPair) -> None:
    config = with_random_pair(
        make_workload(options("--sequences", "1")).config, pair, slots=4, length=20
    )
    worker = config.workers["base"]
    per_token = 2 * TINY.num_hidden_layers * TINY.num_key_value_heads * 16 * 2
    assert kv_bytes_per_token(worker) == per_token
    assert (
        config.kv_cache_bytes
        and config.kv_cache_bytes >= 4 * worker.engine_args["max_model_len"] * per_token
    )


def test_weights_are_read_in_bfloat16(pair: RandomPair) -> None:
    config = with_random_pair(
        make_workload(options("--sequences", "1")).config, pair, slots=4, length=20
    )
    assert weight_bytes(config.workers["base"]) == pytest.approx(2 * num_weights(TINY), rel=0.05)


def test_a_large_pair_is_made_where_it_is_needed_with_the_weights_that_a_file_would_have(
    pair: RandomPair, tmp_path: Path
) -> None:
    large = make_pair(replace(TINY, on_disk=False), tmp_path)
    assert [file.name for file in tmp_path.rglob("*.safetensors")] == []
    config = with_random_pair(
        make_workload(options("--sequences", "1")).config, large, slots=4, length=20
    )
    for policy, folder, written in (("base", large.base, pair.base), ("rl", large.rl, pair.rl)):
        args = config.workers[policy].engine_args
        assert (args["model"], args["load_format"]) == (str(folder), "dummy")
        made: Any = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(folder), dtype=torch.bfloat16
        )
        fill(made, read_shape(folder), policy)
        stored = AutoModelForCausalLM.from_pretrained(written, dtype="auto").state_dict()
        assert all(torch.equal(weight, stored[name]) for name, weight in made.named_parameters())
    assert config.weight_bytes == weight_bytes(config.workers["rl"]) == 2 * num_weights(TINY)


def test_random_jobs_have_prompts_of_one_length_and_noise_of_their_own() -> None:
    jobs = random_jobs(100, 50, 7, None)
    assert {len(job.prompt) for job in jobs} == {NUM_PROMPT_TOKENS}
    assert all(0 <= token < 100 for job in jobs for token in job.prompt)
    assert len({job.noise_key for job in jobs}) == 50


def test_a_workload_of_the_embedded_pair_is_as_large_as_asked() -> None:
    workload = make_workload(
        options("--sequences", "5", "--length", "9", "--budget", "8", "--slots", "3"), num_pairs=2
    )
    assert [job.max_tokens for job in workload.jobs] == [9] * 5
    assert {job.budget for job in workload.jobs} == {8}
    assert [config.number for config in workload.configs] == [1, 2]
    assert workload.config.workers["base"].engine_args["max_num_seqs"] == 3


def test_mean_context_counts_every_token_that_is_attended_to() -> None:
    prompts, lengths = [[0] * 3, [0] * 5], [2, 4]
    contexts = [len(p) + 1 + at for p, n in zip(prompts, lengths, strict=True) for at in range(n)]
    assert mean_context(prompts, lengths) == np.mean(contexts)


def test_bandwidth_is_of_a_machine() -> None:
    assert 1e8 < bandwidth(2**20, "cpu", 1) < 1e13


def test_bandwidth_leaves_torch_as_many_threads_as_it_had() -> None:
    before = torch.get_num_threads()
    bandwidth(2**10, "cpu", before + 1)
    assert torch.get_num_threads() == before
