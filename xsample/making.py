"""From settings to a finished run: the steps that the command and the Python API share."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from engine.config.run_config import RunConfig
from engine.core import ExternalResponses
from engine.models.pair_info import PairInfo
from engine.run.execute import execute
from engine.run.plan import Plan, prepare, prepare_score
from engine.shard import WHOLE
from engine.store.run_store import RunStore
from engine.system.display import Display
from engine.system.log import show_log
from evaluators.external.reading import read_external, task_of
from evaluators.grading.grader import Grader
from evaluators.tasks.registry import load_task


def plan_run(config: RunConfig) -> Plan:
    """The plan of `xsample run`.

    Raises:
        UsageError: Something that the user gave cannot be run as it is.
    """
    return prepare(config, load_task(config))


def plan_score(responses: Path, config: RunConfig) -> Plan:
    """The plan of `xsample score`.

    Args:
        responses: A run directory, or a file of responses.
        config: The settings.

    Raises:
        UsageError: Something that the user gave cannot be measured as it is.
    """
    task = task_of(responses, config)

    def read(pair: PairInfo) -> ExternalResponses:
        return read_external(
            responses, config, task, pair.tokenizer, pair.stop_token_ids, pair.context_length
        )

    return prepare_score(config, read)


def make(plan: Plan, display: Display) -> RunStore:
    """Make and grade what the plan asks for and is not made yet; a shard is not graded.

    Raises:
        XsampleError: As `engine.run.execute.execute` does.
    """
    is_graded = plan.problems and plan.shard == WHOLE
    grading = Grader(plan.problems, plan.grader) if is_graded else nullcontext()
    with grading as grader, show_log(display.note, plan.config.verbose):
        display.note(f"run directory: {plan.out}")
        return execute(plan, grader, display)
