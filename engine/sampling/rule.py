"""Rule: when a run intervenes, and with what. Nouns only.

S(x_<t) in {0, 1} says whether the token at a position comes from the intervention policy
(arXiv 2603.22446, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.core import Policy

CriterionName = Literal[
    "js",
    "kl",
    "reverse-kl",
    "entropy-base",
    "entropy-rl",
    "dlogp",
    "argmax",
    "random",
    "always",
    "never",
]
EosRule = Literal["keep", "drop", "resample"]
TraceMode = Literal["budget", "full"]


@dataclass(frozen=True, slots=True)
class Rule:
    """When to intervene, and with what; the same for a whole run.

    threshold: 0 where the criterion takes none; 0 with random: the positions are given, as many as
    a matched run's. start, stop: positions of the response where it may, stop exclusive.
    extrapolate: g of (1 + g) log p_to - g log p_other, 0: the intervention policy itself; `to` is
    extrapolate_to. trace: until when both engines follow a sequence: its budget is spent, or its
    end.
    """

    criterion: CriterionName = "js"
    threshold: float = 0.1
    start: int = 0
    stop: int = 2**31 - 1
    eos: EosRule = "keep"
    extrapolate: float = 0.0
    extrapolate_to: Policy = "rl"
    stop_token_ids: tuple[int, ...] = ()
    trace: TraceMode = "budget"
