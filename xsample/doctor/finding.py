"""Finding: one fact about this machine, with a verdict and the way out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact about this machine."""

    name: str
    value: str
    ok: bool | None
    """Whether a run can do with it; None if a run works less well, or if nobody can tell."""
    advice: str = ""
    """The way out, if there is one."""
