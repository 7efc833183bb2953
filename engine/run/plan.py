"""Plan: a run that has been checked and is ready to start.

`prepare` and `prepare_score` raise a UsageError for everything that can be known to be wrong before
an engine starts. Nothing here starts an engine or loads a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.config.run_config import RunConfig
from engine.core import POLICIES, ExternalResponses, GraderName, Problem, Task, budget_text
from engine.errors import ConfigError
from engine.lockstep.vllm_engine import check_names
from engine.models.cost import CostEstimate, estimate_cost
from engine.models.memory import MemoryEstimate, estimate_memory
from engine.models.pair_info import PairInfo, inspect_pair
from engine.models.prompt import check_external, check_prompts, render_prompts
from engine.run.match import check_num_positions, read_match
from engine.run.slots import num_slots
from engine.run.time_left import TimeLeft
from engine.run.work import Score, Sweep, Work
from engine.sampling.rule import Rule
from engine.shard import WHOLE, Shard, parse_shard
from engine.system.log import LogConfig
from engine.system.machine import visible_gpus
from engine.system.terminal import visible

_SESSION_SETTINGS = {"shard", "verbose"}  # they may differ between the sessions of one run
# A row of `tokens` uncompressed, without its rare lists. Rows of the embedded pair take 6 to 13.
_BYTES_PER_TOKEN = 70
_MAX_WHOLE_NUCLEUS = 4096  # tokens


@dataclass(frozen=True)
class Plan:
    """One run, resolved."""

    config: RunConfig
    work: Work
    """The trajectories to be made."""
    rule: Rule
    """When the run intervenes, and with what."""
    pair: PairInfo
    max_model_len: int
    """Context of both engines, in tokens."""
    memory: MemoryEstimate
    device: str
    """"cpu" or "cuda"."""
    out: Path
    """The run directory."""

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems whose gold answers are known."""
        return self.work.problems

    @property
    def grader(self) -> GraderName:
        """How answers are compared."""
        return self.work.grader

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about what was read, a line each."""
        return self.work.notes

    @property
    def shard(self) -> Shard:
        """The share of the work that is this process's."""
        return parse_shard(self.config.shard) if self.config.shard else WHOLE

    @property
    def num_slots(self) -> int:
        """Sequences that an engine works on at the same time, at most."""
        return num_slots(self.config, self.memory, self.pair.vocab_size, self.device == "cuda")

    @cached_property
    def cost(self) -> CostEstimate:
        """What the whole run costs on this machine; on a CPU this measures for milliseconds."""
        return estimate_cost(
            self.pair,
            self.config,
            self.memory,
            self.work.amount,
            self.max_model_len,
            self.num_slots,
        )

    @property
    def time_left(self) -> TimeLeft:
        """What is expected of the run while it goes."""
        cost, amount = self.cost, self.work.amount
        return TimeLeft(
            cost.roofline,
            self.config.pairs,
            cost.num_slots,
            amount.prompt_tokens,
            amount.length,
            amount.is_limit,
        )

    def log_config(self, process: str) -> LogConfig:
        """Where a process of the run writes its log."""
        return LogConfig(self.out.absolute() / "logs", process, self.config.verbose)

    def settings(self) -> dict[str, Any]:
        """The configuration as JSON has it, without settings that mean nothing for this work."""
        unused = set(self.work.unused_settings) - self.config.model_fields_set
        return {
            name: value
            for name, value in self.config.model_dump(mode="json").items()
            if name not in unused and name not in _SESSION_SETTINGS
        }

    def describe(self) -> list[tuple[str, str]]:
        """The plan in lines of name and value, for people."""
        pair, memory = self.pair, self.memory
        kv_mib = memory.kv_per_sequence / 2**20
        lines = [(name, str(value)) for name, value in self.settings().items() if value is not None]
        lines += [
            ("models", f"{pair.base} and {pair.rl}, {pair.dtype}, on {self.device}"),
            ("stop tokens", ", ".join(map(str, pair.stop_token_ids))),
            *self.work.describe(),
            ("longest prompt", f"{self.work.longest_prompt} tokens"),
            ("weights", f"{memory.weights / 2**30:.2f} GiB a device"),
            ("KV cache", f"{kv_mib:.1f} MiB a sequence of {self.max_model_len} tokens"),
            ("in flight", f"at most {self.num_slots} sequences an engine"),
        ]
        if memory.warning:
            lines.append(("warning", memory.warning))
        disk_gib = self.work.max_total_tokens * _BYTES_PER_TOKEN / 2**30
        lines += [("disk", f"at most about {disk_gib:.2f} GiB"), ("time", str(self.cost))]
        if self.config.shard:
            lines.append(("shard", f"{self.shard}, these numbers are of the whole run"))
        return [*lines, ("out", str(self.out))]

    def __str__(self) -> str:
        """The lines of `describe`, and the first prompt with its special tokens."""
        lines = self.describe()
        width = max(len(name) for name, _ in lines)
        table = [f"{name:{width}}  {value}" for name, value in lines]
        prompt = ["", f"The first prompt, {len(self.first_prompt_ids)} tokens:", self.first_prompt]
        return visible("\n".join(table + prompt))

    @property
    def first_prompt_ids(self) -> list[int]:
        """Token ids of the first prompt."""
        return self.work.prompt(next(self.work.trajectories()))

    @property
    def first_prompt(self) -> str:
        """The first prompt as the models see it, special tokens included."""
        return str(self.pair.tokenizer.decode(self.first_prompt_ids))


def prepare(config: RunConfig, task: Task) -> Plan:
    """Check models, prompts, memory and the matched run, for `xsample run`.

    Args:
        config: The settings of the run.
        task: The problems to ask.

    Raises:
        UsageError: Something that the user gave cannot be run as it is.
    """
    pair = _inspect(config)
    if config.trace == "full":
        _check_measurable(config, pair)
    sweep = Sweep(config, task, render_prompts(pair.tokenizer, task))
    rule = config.rule(sweep.max_tokens, pair.stop_token_ids)
    by_problem = {key.problem: sweep.prompt(key) for key in sweep.trajectories()}
    limits = (config.max_model_len, pair.context_length, pair.vocab_size)
    max_model_len = check_prompts(by_problem, sweep.max_tokens, *limits)
    if config.match:
        matched = read_match(config.match, sweep.trajectories(), pair.identity() | sweep.asked())
        check_num_positions(config.match, matched, config.window, rule.start, rule.stop)
        sweep = sweep.matching(matched)
    budgets = "-".join(map(budget_text, config.budget))
    criterion = "" if config.criterion == "js" else f"-{config.criterion}"
    name = f"{task.name}-{config.direction}-{budgets}{criterion}"
    return _plan(config, sweep, rule, pair, max_model_len, name)


def prepare_score(config: RunConfig, read: Callable[[PairInfo], ExternalResponses]) -> Plan:
    """Check models, memory and every external response, for `xsample score`.

    Args:
        config: The settings of the run.
        read: Gives the responses to be measured under a pair.

    Raises:
        UsageError: Something that the user gave cannot be measured as it is.
    """
    pair = _inspect(config)
    _check_measurable(config, pair)
    external = read(pair)
    limits = (config.max_model_len, pair.context_length, pair.vocab_size)
    max_model_len = check_external(external, *limits)
    return _plan(config, Score(external), Rule(), pair, max_model_len, f"{external.name}-scored")


def _check_measurable(config: RunConfig, pair: PairInfo) -> None:
    """Check that what is measured after it was made has nuclei that can be kept.

    Raises:
        ConfigError: Every nucleus would be the whole of a large vocabulary.
    """
    is_whole = config.top_p == 1 and not config.top_k and config.temperature
    if is_whole and pair.vocab_size > _MAX_WHOLE_NUCLEUS:
        raise ConfigError(
            f"top_p is 1, so each nucleus would hold all {pair.vocab_size:,} tokens, at every"
            " position that is measured: give --top-p 0.999 or --top-k 1000"
        )


def _inspect(config: RunConfig) -> PairInfo:
    """The two models, as the arguments that the user adds to vLLM's change them."""
    added = {policy: config.engine_args(policy) for policy in POLICIES}
    check_names(added["base"] | added["rl"])
    overrides = {policy: args.get("hf_overrides") or {} for policy, args in added.items()}
    return inspect_pair(config.base, config.rl, config.trust_remote_code, overrides)


def _plan(
    config: RunConfig, work: Work, rule: Rule, pair: PairInfo, max_model_len: int, name: str
) -> Plan:
    memory = estimate_memory(pair, config, max_model_len)
    device = config.device
    if device == "auto":
        device = "cuda" if visible_gpus() else "cpu"
    out = config.out
    if out is None:  # milliseconds, for plans that are made in one second
        now = datetime.now()
        out = Path("runs") / f"{name}-{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03}"
    return Plan(config, work, rule, pair, max_model_len, memory, device, out)
