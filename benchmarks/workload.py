"""Workload: what a benchmark gives to a pair, and the pair that it is given to.

"embedded" is the real thing: the project's pair, its prompts, responses that end where they end.
The random pairs of `models` take the same plan with other engines: their stop token lies outside
the vocabulary that is sampled from, so every response has exactly the length that was asked for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.models import (
    SHAPES,
    RandomPair,
    num_weights,
    random_pair,
    read_shape,
)
from engine.lockstep.engine_pair import PairConfig
from engine.lockstep.job import Job
from engine.lockstep.worker import WorkerConfig
from engine.run.placement import pair_config
from engine.run.plan import Plan, prepare
from engine.run.settings import load
from engine.sampling.noise import stream_key
from engine.sampling.rule import Rule
from engine.system.machine import visible_gpus
from evaluators.tasks.registry import load_task

MODELS = ("embedded", *SHAPES)
# Short: a prompt is computed by all contenders alike, and what a decode step costs is the question.
NUM_PROMPT_TOKENS = 8
_DEFAULT_LENGTH: Mapping[str, int | None] = {
    "embedded": None, "50m": 128, "500m": 16, "7b": 64, "32b": 32, "1m": 32
}  # fmt: skip
# Tokens; room in the KV cache is counted in so many, and vLLM's default blocks hold no more.
_BLOCK = 128


@dataclass(frozen=True)
class Workload:
    """Jobs under a rule, for pairs of one kind.

    device: "cpu" or "cuda"; slots: sequences in flight; top_p: of the sampling.
    """

    device: str
    slots: int
    top_p: float
    jobs: list[Job]
    rule: Rule
    configs: tuple[PairConfig, ...]

    @property
    def config(self) -> PairConfig:
        """The first pair's."""
        return self.configs[0]

    @property
    def prompts(self) -> list[list[int]]:
        """Token ids of every job's prompt."""
        return [job.prompt for job in self.jobs]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What says which workload is meant."""
    parser.add_argument("--model", choices=MODELS, default="embedded")
    parser.add_argument("--slots", type=int, default=64, help="sequences in flight")
    parser.add_argument(
        "--sequences", type=int, help="default: 256 of the embedded pair, else one a slot"
    )
    parser.add_argument(
        "--length", type=int, help="tokens a response; of the embedded pair: at most"
    )
    parser.add_argument("--budget", default="unlimited", help="interventions a response")
    parser.add_argument("--top-p", type=float, default=0.7)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument(
        "--models", type=Path, help="folder of the random models; default: the user's cache"
    )


def make_workload(options: argparse.Namespace, num_pairs: int = 1) -> Workload:
    """The workload that these options ask for, on so many pairs; makes random models that are not
    there.
    """
    plan = _plan(options, num_pairs)
    configs = tuple(_without_log(pair_config(plan, number)) for number in range(num_pairs))
    length = options.length or _DEFAULT_LENGTH[options.model]
    if options.model == "embedded":
        jobs = [
            plan.work.job(key) for key in islice(plan.work.trajectories(), options.sequences or 256)
        ]
        jobs = [
            replace(job, max_tokens=min(job.max_tokens, length or job.max_tokens)) for job in jobs
        ]
        return Workload(options.device, options.slots, options.top_p, jobs, plan.rule, configs)
    assert length
    pair = random_pair(options.model, options.models)
    sequences = options.sequences or num_pairs * options.slots
    jobs = random_jobs(pair.shape.vocab_size - 1, sequences, length, plan.config.budget[0])
    rule = replace(plan.rule, start=0, stop=length, stop_token_ids=(pair.shape.vocab_size - 1,))
    configs = tuple(with_random_pair(config, pair, options.slots, length) for config in configs)
    return Workload(options.device, options.slots, options.top_p, jobs, rule, configs)


def _plan(options: argparse.Namespace, num_pairs: int) -> Plan:
    settings = {
        "device": options.device,
        "share_gpu": options.device == "cuda" and len(visible_gpus()) == 1,
        "max_num_seqs": options.slots,
        "budget": options.budget,
        "top_p": options.top_p,
        "pairs": num_pairs,
        "kv_cache_gib": 1.0,
        "out": "unused",
    }
    config = load(None, settings)
    return prepare(config, load_task(config))


def _without_log(config: PairConfig) -> PairConfig:
    """There is no run directory to write it to."""
    return replace(
        config,
        workers={policy: replace(worker, log=None) for policy, worker in config.workers.items()},
    )


def random_jobs(vocab_size: int, num_sequences: int, length: int, budget: int | None) -> list[Job]:
    """Forward jobs with prompts of random ids below vocab_size."""
    prompts = (
        np.random.default_rng(0)
        .integers(0, vocab_size, (num_sequences, NUM_PROMPT_TOKENS))
        .tolist()
    )
    return [
        Job(prompt, stream_key(0, str(n), 0), True, budget, length)
        for n, prompt in enumerate(prompts)
    ]


def with_random_pair(config: PairConfig, pair: RandomPair, slots: int, length: int) -> PairConfig:
    """The same pair of engines with a random pair's models, and room in the KV cache for all that
    is in flight.
    """
    context, stop_token = NUM_PROMPT_TOKENS + length, pair.shape.vocab_size - 1
    blocks = -(-context // _BLOCK) + 1
    workers = {}
    for policy, model in (("base", pair.base), ("rl", pair.rl)):
        worker = config.workers[policy]
        args = {"model": str(model), "dtype": "bfloat16", "max_model_len": context}
        if not pair.shape.on_disk:
            args["load_format"] = "dummy"
        workers[policy] = replace(
            worker,
            sampler=replace(worker.sampler, vocab_size=stop_token),
            engine_args=worker.engine_args | args,
            stop_token_ids=(stop_token,),
        )
    return replace(
        config,
        workers=workers,
        idle_helps=pair.shape.on_disk,  # there must be files to load again
        weight_bytes=2 * num_weights(pair.shape),
        kv_cache_bytes=slots * blocks * _BLOCK * kv_bytes_per_token(workers["base"]),
    )


def weight_bytes(worker: WorkerConfig) -> int:
    """Of one engine's model, as its file has them; or as they are made, in bfloat16."""
    model = Path(worker.engine_args["model"])
    if worker.engine_args.get("load_format") == "dummy":
        return 2 * num_weights(read_shape(model))
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


def kv_bytes_per_token(worker: WorkerConfig) -> int:
    """What a token leaves in one engine's KV cache."""
    model = json.loads((Path(worker.engine_args["model"]) / "config.json").read_text())
    head = model["hidden_size"] // model["num_attention_heads"]
    bytes_each = {"float32": 4, "bfloat16": 2, "float16": 2}[worker.engine_args["dtype"]]
    return int(2 * model["num_hidden_layers"] * model["num_key_value_heads"] * head * bytes_each)
