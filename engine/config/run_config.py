"""RunConfig: everything a run needs to know, frozen, checked once. Imports nothing heavy.

Flat on purpose: a key of run.yaml, an option of `xsample run` and a field here have one name
(`max_tokens`, `--max-tokens`). Checks that need the task set or the models are made in `preflight`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from engine.config.switching import (
    check_match,
    check_window,
    parse_budget,
    resolve_extrapolation,
    resolve_threshold,
    resolve_window,
)
from engine.core import DIRECTIONS, Direction, GraderName, Policy
from engine.errors import ConfigError
from engine.sampling.rule import CriterionName, EosRule, Rule, TraceMode
from engine.shard import parse_shard

CPU_KV_CACHE_GIB = 1.0  # of an engine, where the user gives no size

PromptName = Literal["boxed", "dapo", "gpqa", "plain"]


PANELS: dict[str, tuple[str, ...]] = {
    "Models": ("base", "rl", "dtype", "trust_remote_code"),
    "Task": (
        "task", "limit", "prompt", "prompt_template", "grader", "task_data", "question_column",
        "answer_column", "id_column",
    ),
    "Intervention": (
        "direction", "budget", "criterion", "threshold", "match", "window", "eos", "extrapolate",
        "extrapolate_to",
    ),
    "Sampling": ("samples", "max_tokens", "temperature", "top_p", "top_k", "seed"),
    "What is recorded": ("trace", "record_threshold", "record_top_k"),
    "Machine": (
        "device", "pairs", "tensor_parallel_size", "share_gpu", "max_num_seqs", "kv_cache_gib",
        "num_kv_blocks", "max_model_len", "max_num_batched_tokens", "enforce_eager", "ray_address",
        "rendezvous", "step_timeout",
    ),
    "Output": ("out", "shard", "verbose"),
}  # fmt: skip
"""The fields of RunConfig by the title of their panel, in the order of display.

In each panel the options that a newcomer needs come first.
"""


class RunConfig(BaseModel):
    """One run, resolved. Raises ConfigError through `settings.load`; see each field's description
    for units.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # What is asked of whom
    base: str | None = Field(
        None, description="base model: folder or hub id; with --rl. Default: the embedded pair"
    )
    rl: str | None = Field(None, description="RL-tuned model: folder or hub id; with --base")
    task: str = Field(
        "arithmetic",
        description="a task set (`xsample tasks`), a CSV, JSONL or Parquet file, or a hub id",
    )
    task_data: str | None = Field(
        None, description="load the named task set from this file, folder or hub id instead"
    )
    question_column: str | None = Field(
        None, description="column of the question; default: by its usual names"
    )
    answer_column: str | None = Field(
        None, description="column of the gold answer; default: by its usual names"
    )
    id_column: str | None = Field(
        None, description="column of the problem's id; default: by its usual names"
    )
    prompt: PromptName | None = Field(
        None, description="what is asked around the question; default: the task's"
    )
    prompt_template: Path | None = Field(
        None, description="text file with {question} once, instead of prompt"
    )
    grader: GraderName | None = Field(
        None, description="how answers are compared; default: the task's"
    )
    limit: int | None = Field(None, ge=1, description="only the first N problems")
    samples: int | None = Field(None, ge=1, description="samples a problem; default: the task's")

    # The intervention
    direction: Literal["forward", "reverse", "both"] = Field("both", description="who is primary")
    budget: tuple[int | None, ...] = Field(
        (8,),
        description="most interventions a response: N, or a rising list N,M,..., unlimited last",
    )
    criterion: CriterionName = Field(
        "js", description="when to intervene: what is asked at every position"
    )
    threshold: float | None = Field(
        None,
        description=(
            "intervene above it, dlogp: below; nats, random: a rate. Default: js 0.1, dlogp -0.3"
        ),
    )
    match: Path | None = Field(
        None,
        description=(
            "run whose numbers of interventions random positions keep, and whose settings are taken"
            " over"
        ),
    )
    window: str | None = Field(
        None,
        description=(
            "START:STOP, positions where it may intervene: tokens or shares of max_tokens (32: or"
            " :25%)"
        ),
    )
    eos: EosRule = Field(
        "keep",
        description="a stop token that the intervention proposes: taken, dropped, drawn again",
    )
    extrapolate: float = Field(
        0.0,
        ge=0,
        le=100,
        description="g: intervene with (1+g) log p_to - g log p_other instead; 0: off",
    )
    extrapolate_to: Policy | None = Field(
        None, description="the policy `to` of extrapolate; default: rl if forward"
    )

    # Sampling, the same for both policies
    temperature: float = Field(1.0, ge=0, le=100, description="0 is greedy (then --top-p 1)")
    top_p: float = Field(0.7, gt=0, le=1, description="nucleus mass")
    top_k: int = Field(0, ge=0, description="0: off")
    max_tokens: int | None = Field(
        None, ge=1, description="length cap of a response; default: the task's"
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="of the noise that couples policies, directions and budgets"
    )

    # What is recorded
    trace: TraceMode = Field(
        "budget",
        description=(
            "how far both engines follow a sequence: until its budget is spent, or to its end"
        ),
    )
    record_threshold: float = Field(
        0.1, ge=0, description="store both top-k lists where js is at least this (nats)"
    )
    record_top_k: int = Field(10, ge=1, le=100, description="length of these lists")

    # The machines
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where the engines run")
    pairs: int = Field(1, ge=1, description="pairs of engines that pull from one queue")
    tensor_parallel_size: int = Field(1, ge=1, description="devices (CPU: cores) an engine")
    share_gpu: bool = Field(False, description="both engines of a pair on one GPU")
    max_num_seqs: int = Field(64, ge=1, description="sequences in flight an engine")
    max_num_batched_tokens: int | None = Field(
        None, ge=1, description="tokens a step; default: prompt and decode fit"
    )
    max_model_len: int | None = Field(
        None, ge=2, description="context; default: prompt + max_tokens"
    )
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description=f"KV cache an engine and device; default: CPU {CPU_KV_CACHE_GIB:g}, GPU: fits",
    )
    num_kv_blocks: int | None = Field(None, ge=1, description="KV cache in blocks instead of GiB")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of weights and activations"
    )
    enforce_eager: bool | None = Field(
        None, description="no CUDA graphs, no compilation; default: on the CPU"
    )
    rendezvous: Literal["auto", "shm", "tcp"] = Field(
        "auto", description="how the samplers meet; auto: by placement"
    )
    step_timeout: float = Field(
        300.0, ge=1, description="seconds one engine waits for the other in a step"
    )
    ray_address: str | None = Field(
        None, description="Ray cluster to join; default: one of our own on this machine"
    )
    trust_remote_code: bool = Field(False, description="run code that a model folder brings along")

    # Where it goes
    shard: str | None = Field(
        None, description="K/N: only this share of the run, beside the others in the same --out"
    )
    verbose: int = Field(
        0, ge=0, le=2, description="say what is done; twice: every lease, and all that vLLM logs"
    )
    out: Path | None = Field(
        None, description="run directory; the same one again resumes. Default: runs/<name>-<time>"
    )

    @field_validator("budget", mode="before")
    @classmethod
    def _parse_budget(cls, value: object) -> tuple[int | None, ...]:
        return parse_budget(value)

    @field_validator("window", mode="before")
    @classmethod
    def _check_window(cls, value: object) -> str | None:
        return None if value is None else check_window(value)

    @field_validator("shard", mode="before")
    @classmethod
    def _check_shard(cls, value: object) -> str | None:
        return None if value is None else str(parse_shard(str(value)))

    @field_validator("out", "prompt_template", "match", mode="before")
    @classmethod
    def _parse_path(cls, value: object) -> object:
        return Path(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_together(self) -> RunConfig:
        if (self.base is None) != (self.rl is None):
            given, missing = ("base", "rl") if self.rl is None else ("rl", "base")
            raise ValueError(
                f"{given} is given without {missing}: a pair needs both, or neither for the"
                " embedded pair"
            )
        if self.shard and not self.out:
            raise ValueError(
                f"shard is {self.shard}, but there is no out: give the --out that all shards share"
            )
        if self.prompt and self.prompt_template:
            raise ValueError(
                "prompt and prompt_template both say what is asked around the question: give one"
            )
        if self.temperature == 0 and (self.top_p < 1 or self.top_k > 1):
            raise ValueError(
                f"temperature is 0 (greedy) but top_p is {self.top_p} and top_k {self.top_k}:"
                " greedy decoding has no nucleus; give --top-p 1 --top-k 0 with it, or a"
                " temperature above 0"
            )
        if self.ray_address and self.device == "auto":
            raise ValueError(
                "ray_address is given, but from here one cannot tell what that cluster has: give"
                " device too"
            )
        if self.share_gpu and self.tensor_parallel_size > 1:
            raise ValueError(
                "share_gpu puts both engines on one GPU: tensor_parallel_size must be 1 with it"
            )
        if (
            self.max_num_batched_tokens is not None
            and self.max_num_batched_tokens < self.max_num_seqs
        ):
            raise ValueError(
                f"max_num_batched_tokens is {self.max_num_batched_tokens}, max_num_seqs"
                f" {self.max_num_seqs}: a step must hold a token of every sequence in flight; raise"
                " the first or lower the second"
            )
        if self.kv_cache_gib is not None and self.num_kv_blocks is not None:
            raise ValueError(
                "kv_cache_gib and num_kv_blocks both set the size of the KV cache: give one"
            )
        return self

    @model_validator(mode="after")
    def _check_intervention(self) -> RunConfig:
        check_match(self.match, self.criterion, "criterion" in self.model_fields_set)
        self._threshold()
        self._extrapolate_to()
        if self.max_tokens is not None:
            resolve_window(self.window, self.max_tokens)
        return self

    def _threshold(self) -> float:
        return resolve_threshold(self.criterion, self.threshold, self.match is not None)

    def _extrapolate_to(self) -> Policy:
        return resolve_extrapolation(
            self.extrapolate, self.extrapolate_to, self.criterion, self.direction
        )

    def rule(self, max_tokens: int, stop_token_ids: tuple[int, ...]) -> Rule:
        """The switching rule. Raises ConfigError for a window that is empty or goes beyond
        max_tokens.
        """
        try:
            start, stop = resolve_window(self.window, max_tokens)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return Rule(
            self.criterion,
            self._threshold(),
            start,
            stop,
            self.eos,
            self.extrapolate,
            self._extrapolate_to(),
            stop_token_ids,
            self.trace,
        )

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions that this run covers."""
        return DIRECTIONS if self.direction == "both" else (self.direction,)
