"""Finding: one fact that the doctor found, with a verdict and the way out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact. `ok` None: neither good nor bad for a run, or no verdict; `advice` is the way out,
    if any.
    """

    name: str
    value: str
    ok: bool | None
    advice: str = ""
