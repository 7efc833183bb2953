"""RunConfig: the settings of a run, checked once and then frozen.

One source for the keys of run.yaml, the options of `xsample run` and their help: all have the names
of the fields (`max_tokens`, `--max-tokens`), so the class is flat on purpose. What needs the task
set or the models is checked in `engine.run.plan`. Imports nothing heavy.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from engine.config.engine_args import engine_args, parse_engine_args
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

CPU_KV_CACHE_GIB = 1.0
"""KV cache of an engine on the CPU if the user gives no size, in GiB."""

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
        "num_kv_blocks", "max_model_len", "max_num_batched_tokens", "enforce_eager", "engine_arg",
        "base_engine_arg", "rl_engine_arg", "idle_helps", "ray_address", "rendezvous",
        "step_timeout",
    ),
    "Output": ("out", "shard", "verbose"),
}  # fmt: skip
"""The fields of RunConfig by the title of their panel, in the order of display.

In each panel the options that a newcomer needs come first.
"""


class RunConfig(BaseModel):
    """The settings of one run, checked and frozen.

    `engine.run.settings.load` makes one of a YAML file and options, and turns pydantic's errors
    into a ConfigError. The description of each field is its help: it has the unit, and the meaning
    of None if None means something.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    # Models
    base: str | None = Field(
        None,
        description=(
            "Base model: a folder or a hub id; give rl with it. Default: the embedded tiny pair."
        ),
    )
    rl: str | None = Field(
        None,
        description=(
            "RL-tuned model: a folder or a hub id; give base with it. Default: the embedded tiny"
            " pair."
        ),
    )

    # Task
    task: str = Field(
        "arithmetic",
        description=(
            "Problems to solve: a task set (see `xsample tasks`), a CSV, JSONL or Parquet file, or"
            " a hub id."
        ),
    )
    task_data: str | None = Field(
        None,
        description=(
            "File, folder or hub id to load the named task set from. Default: the source"
            " that `xsample tasks` lists."
        ),
    )
    question_column: str | None = Field(
        None,
        description=(
            "Column of the questions. Default: the first one with a usual name, such as problem."
        ),
    )
    answer_column: str | None = Field(
        None,
        description=(
            "Column of the gold answers. Default: the first one with a usual name, such as answer."
        ),
    )
    id_column: str | None = Field(
        None,
        description="Column of the problem ids. Default: the first one with a usual name, if any.",
    )
    prompt: PromptName | None = Field(
        None, description="Prompt to put around each question. Default: that of the task set."
    )
    prompt_template: Path | None = Field(
        None,
        description=(
            "Text file to use instead of a named prompt; it contains {question} exactly once."
        ),
    )
    grader: GraderName | None = Field(
        None,
        description="How answers are compared with gold answers. Default: that of the task set.",
    )
    limit: int | None = Field(
        None, ge=1, description="Use only the first N problems. Default: all problems."
    )
    samples: int | None = Field(
        None,
        ge=1,
        description=(
            "Responses per problem, direction and budget. Default: the number of the task set."
        ),
    )

    # Intervention
    direction: Literal["forward", "reverse", "both"] = Field(
        "both",
        description=(
            "forward: swap RL tokens into base responses; reverse: base tokens into RL"
            " responses; both: do both."
        ),
    )
    budget: tuple[int | None, ...] = Field(
        (8,),
        description=(
            "Interventions per response, at most: a number, unlimited, or a rising list"
            " of them (0,8,unlimited)."
        ),
    )
    criterion: CriterionName = Field(
        "js",
        description=(
            "What decides at each position whether to intervene there; most criteria"
            " have a threshold."
        ),
    )
    threshold: float | None = Field(
        None,
        description=(
            "Intervene above it (dlogp: below it), in nats; random: a rate. Default: js 0.1, dlogp"
            " -0.3."
        ),
    )
    match: Path | None = Field(
        None,
        description=(
            "Run that this control matches: as many interventions at random positions;"
            " its settings are inherited."
        ),
    )
    window: str | None = Field(
        None,
        description=(
            "Positions START:STOP where interventions are allowed, in tokens or % of"
            " max_tokens. Default: all."
        ),
    )
    eos: EosRule = Field(
        "keep",
        description=(
            "What to do if an intervention proposes a stop token: keep it, drop the"
            " intervention, or resample."
        ),
    )
    extrapolate: float = Field(
        0.0,
        ge=0,
        le=100,
        description=(
            "Strength g: interventions sample from (1+g) log p_to - g log p_other"
            " instead; 0 turns it off."
        ),
    )
    extrapolate_to: Policy | None = Field(
        None,
        description=(
            "Policy p_to that extrapolate moves towards. Default: rl in direction"
            " forward; else give one."
        ),
    )

    # Sampling, the same for both policies
    temperature: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Sampling temperature of both models; 0 is greedy decoding and needs top_p 1.",
    )
    top_p: float = Field(
        0.7, gt=0, le=1, description="Probability mass of the nucleus that both models sample from."
    )
    top_k: int = Field(
        0,
        ge=0,
        description="Number of most probable tokens that both models sample from; 0: no limit.",
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="Maximum length of a response, in tokens. Default: that of the task set.",
    )
    seed: int = Field(
        0,
        ge=0,
        lt=2**63,
        description=(
            "Seed of the sampling noise, which both models, all directions and all budgets share."
        ),
    )

    # What is recorded
    trace: TraceMode = Field(
        "budget",
        description=(
            "How much of a response both models measure; budget: until its budget is spent;"
            " full: all of it."
        ),
    )
    record_threshold: float = Field(
        0.1,
        ge=0,
        description=(
            "Record the top-k tokens of both models where their JS divergence is at"
            " least this many nats."
        ),
    )
    record_top_k: int = Field(
        10,
        ge=1,
        le=100,
        description="Number of tokens of each model to record there, most probable first.",
    )

    # Machine
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="Where the engines run; auto: on GPUs if there are any, else on the CPU.",
    )
    pairs: int = Field(
        1, ge=1, description="Pairs of engines that share the work; each pair loads both models."
    )
    tensor_parallel_size: int = Field(
        1, ge=1, description="GPUs per engine; on the CPU, processes per engine."
    )
    share_gpu: bool = Field(False, description="Put both engines of a pair on one GPU.")
    idle_helps: bool = Field(
        True,
        description=(
            "Let an idle engine load the weights of the other model and help, where that pays."
        ),
    )
    max_num_seqs: int | None = Field(
        None,
        ge=1,
        description=(
            "Sequences in flight per engine. Default: as the KV cache allows, up to 128 on the CPU"
            " and 256 on a GPU."
        ),
    )
    max_num_batched_tokens: int | None = Field(
        None,
        ge=1,
        description=(
            "Tokens per engine step, at most. Default: the longest prompt +"
            " max_num_seqs, at least 2048."
        ),
    )
    max_model_len: int | None = Field(
        None,
        ge=2,
        description="Context of the engines, in tokens. Default: the longest prompt + max_tokens.",
    )
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        description=(
            "KV cache per engine and device, in GiB. Default:"
            f" {CPU_KV_CACHE_GIB:g} on the CPU; on a GPU what is free, at most what is of use."
        ),
    )
    num_kv_blocks: int | None = Field(
        None, ge=1, description="KV cache per engine in blocks of vLLM, instead of kv_cache_gib."
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision of weights and activations; auto: that of the RL model."
    )
    enforce_eager: bool | None = Field(
        None,
        description="Run without CUDA graphs and compilation. Default: only on the CPU.",
    )
    engine_arg: tuple[str, ...] = Field(
        (),
        description=(
            "Argument of vLLM's own for both engines, such as attention_backend=TRITON_ATTN;"
            " repeatable."
        ),
    )
    base_engine_arg: tuple[str, ...] = Field(
        (),
        description=(
            "The same for the base engine alone: how it is loaded, such as quantization=fp8."
        ),
    )
    rl_engine_arg: tuple[str, ...] = Field((), description="The same for the RL engine alone.")
    rendezvous: Literal["auto", "shm", "tcp"] = Field(
        "auto",
        description=(
            "How the engines of a pair exchange data; auto: shared memory on one machine, else TCP."
        ),
    )
    step_timeout: float = Field(
        300.0,
        ge=1,
        description="Seconds that one engine waits for the other in a step before the pair fails.",
    )
    ray_address: str | None = Field(
        None,
        description=(
            "Address of a running Ray cluster to use. Default: start a private one on this machine."
        ),
    )
    trust_remote_code: bool = Field(
        False, description="Allow Python code that comes with a model to run."
    )

    # Output
    shard: str | None = Field(
        None,
        description=(
            "Make only share K/N of the run, such as 3/8; all shares need the same out."
            " Default: the whole run."
        ),
    )
    verbose: int = Field(
        0,
        ge=0,
        le=2,
        description=(
            "Show log records on the screen; twice (-vv): also every lease, and log all"
            " that vLLM says."
        ),
    )
    out: Path | None = Field(
        None,
        description=(
            "Run directory; the same command with it resumes the run. Default: runs/NAME-TIME."
        ),
    )

    @field_validator("budget", mode="before")
    @classmethod
    def _parse_budget(cls, value: object) -> tuple[int | None, ...]:
        return parse_budget(value)

    @field_validator("engine_arg", "base_engine_arg", "rl_engine_arg", mode="before")
    @classmethod
    def _parse_engine_args(cls, value: object, info: ValidationInfo) -> tuple[str, ...]:
        return parse_engine_args(value, may_differ=info.field_name != "engine_arg")

    @field_validator("window", mode="before")
    @classmethod
    def _check_window(cls, value: object) -> str | None:
        return None if value is None else check_window(value)

    @field_validator("shard", mode="before")
    @classmethod
    def _parse_shard(cls, value: object) -> str | None:
        return None if value is None else str(parse_shard(str(value)))

    @field_validator("out", "prompt_template", "match", mode="before")
    @classmethod
    def _parse_path(cls, value: object) -> object:
        return Path(value) if isinstance(value, (str, PathLike)) else value

    @field_validator("base", "rl", "task", "task_data", mode="before")
    @classmethod
    def _parse_place(cls, value: object) -> object:
        """A place is a path or a hub id, so it is kept as text."""
        return str(value) if isinstance(value, Path) else value

    @model_validator(mode="after")
    def _check_models_and_task(self) -> RunConfig:
        if (self.base is None) != (self.rl is None):
            present, missing = ("base", "rl") if self.rl is None else ("rl", "base")
            raise ValueError(
                f"{present} is given without {missing}: a pair needs both, or neither for the"
                " embedded pair"
            )
        if self.prompt and self.prompt_template:
            raise ValueError(
                "prompt and prompt_template both say what is asked around the question: give one"
            )
        return self

    @model_validator(mode="after")
    def _check_sampling(self) -> RunConfig:
        if self.temperature == 0 and (self.top_p < 1 or self.top_k > 1):
            raise ValueError(
                f"temperature is 0 (greedy) but top_p is {self.top_p} and top_k {self.top_k}:"
                " greedy decoding has no nucleus; give --top-p 1 --top-k 0 with it, or a"
                " temperature above 0"
            )
        return self

    @model_validator(mode="after")
    def _check_machine(self) -> RunConfig:
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
            and self.max_num_seqs is not None
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
    def _check_output(self) -> RunConfig:
        if self.shard and not self.out:
            raise ValueError(
                f"shard is {self.shard}, but there is no out: give the --out that all shards share"
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
        """The switching rule of the run.

        Args:
            max_tokens: Tokens of a response, at most: the setting, or what the task set says.
            stop_token_ids: The stop tokens of the pair.

        Raises:
            ConfigError: The window is empty or goes beyond `max_tokens`.
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

    def engine_args(self, policy: Policy) -> dict[str, Any]:
        """The arguments of vLLM's own that the user adds to the engine of a policy, by name."""
        return engine_args((*self.engine_arg, *getattr(self, f"{policy}_engine_arg")))

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions that the run makes."""
        return DIRECTIONS if self.direction == "both" else (self.direction,)
