"""From settings to a checked plan: what the command and the Python API share. Starts nothing."""

from __future__ import annotations

from pathlib import Path

from engine.config.run_config import RunConfig
from engine.core import ExternalResponses
from engine.models.pair_info import PairInfo
from engine.run.plan import Plan, prepare, prepare_score
from engine.run.run_json import manifest_of
from engine.store.run_store import RunStore
from evaluators.external.reading import read_external, task_of
from evaluators.tasks.registry import load_task


def plan_run(config: RunConfig) -> Plan:
    """Plan what `xsample run` does.

    Raises:
        UsageError: Something cannot be run as it is, the run directory included.
    """
    return _checked(prepare(config, load_task(config)))


def plan_score(responses: Path, config: RunConfig) -> Plan:
    """Plan what `xsample score` does with the responses at a place.

    Raises:
        UsageError: Something cannot be measured as it is, the run directory included.
    """
    task = task_of(responses, config)

    def read(pair: PairInfo) -> ExternalResponses:
        return read_external(
            responses, config, task, pair.tokenizer, pair.stop_token_ids, pair.context_length
        )

    return _checked(prepare_score(config, read))


def _checked(plan: Plan) -> Plan:
    RunStore.check(plan.out, manifest_of(plan))
    return plan
