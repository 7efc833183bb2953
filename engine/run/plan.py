"""Plan: a run that has been checked and is ready to start.

`prepare` and `prepare_score` raise a UsageError for everything that can be known to be wrong before
an engine starts. Nothing here starts an engine or loads a weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from engine.config.run_config import RunConfig
from engine.core import ExternalResponses, GraderName, Problem, Task, budget_text
from engine.models.memory import MemoryEstimate, estimate_memory
from engine.models.pair_info import PairInfo, inspect_pair
from engine.models.prompt import check_external, check_prompts, render_prompts
from engine.run.match import check_room, read_match
from engine.run.work import Score, Sweep, Work
from engine.sampling.rule import Rule
from engine.shard import WHOLE, Shard, parse_shard
from engine.system.log import LogConfig
from engine.system.machine import visible_gpus


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

    def log_config(self, process: str) -> LogConfig:
        """Where a process of the run writes its log."""
        return LogConfig(self.out.absolute() / "logs", process, self.config.verbose)

    @property
    def first_prompt_ids(self) -> list[int]:
        """Token ids of the first prompt."""
        return self.work.prompt(next(self.work.trajectories()))

    @property
    def first_prompt(self) -> str:
        """The first prompt as the models see it, special tokens included."""
        return str(self.pair.tokenizer.decode(self.first_prompt_ids))


def prepare(config: RunConfig, task: Task) -> Plan:
    """Check models, prompts, memory and what is matched, for `xsample run`.

    Args:
        config: The settings of the run.
        task: The problems to ask.

    Raises:
        UsageError: Something that the user gave cannot be run as it is.
    """
    pair = inspect_pair(config.base, config.rl, config.trust_remote_code)
    sweep = Sweep(config, task, render_prompts(pair.tokenizer, task))
    rule = config.rule(sweep.max_tokens, pair.stop_token_ids)
    by_problem = {key.problem: sweep.prompt(key) for key in sweep.trajectories()}
    limits = (config.max_model_len, pair.context_length, pair.vocab_size)
    max_model_len = check_prompts(by_problem, sweep.max_tokens, *limits)
    if config.match:
        matched = read_match(config.match, sweep.trajectories(), pair.identity() | sweep.asked())
        check_room(config.match, matched, config.window, rule.start, rule.stop)
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
    pair = inspect_pair(config.base, config.rl, config.trust_remote_code)
    external = read(pair)
    limits = (config.max_model_len, pair.context_length, pair.vocab_size)
    max_model_len = check_external(external, *limits)
    return _plan(config, Score(external), Rule(), pair, max_model_len, f"{external.name}-scored")


def _plan(
    config: RunConfig, work: Work, rule: Rule, pair: PairInfo, max_model_len: int, name: str
) -> Plan:
    memory = estimate_memory(pair, config, max_model_len)
    device = config.device
    if device == "auto":
        device = "cuda" if visible_gpus() else "cpu"
    out = config.out or Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    return Plan(config, work, rule, pair, max_model_len, memory, device, out)
