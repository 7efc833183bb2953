"""What a run.json says of its run. It is read with care: someone may have edited it, or an older version written it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def part(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An object of run.json; empty where it is not there, or is something else."""
    found = manifest.get(name)
    return found if isinstance(found, dict) else {}


def is_scored(manifest: Mapping[str, Any]) -> bool:
    """Whether the responses are given ones that `xsample score` measured."""
    return "responses" in part(manifest, "identity")


def is_gated(manifest: Mapping[str, Any]) -> bool:
    """Whether the text of the problems must not be published; where run.json does not say, it must not."""
    return part(manifest, "task").get("gated") is not False
