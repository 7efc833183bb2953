"""Rule: where a run intervenes, and with which policy. Nouns only.

A rule is S(x_<t) in {0, 1} of arXiv 2603.22446, section 3: whether the token at a position comes
from the intervention policy.
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
    """Where to intervene, and with which policy; the same for a whole run."""

    criterion: CriterionName = "js"
    threshold: float = 0.1
    """Threshold of the criterion.

    0 where the criterion takes none, and for random positions as many as a matched run's.
    """
    start: int = 0
    """First position of a response where an intervention is allowed."""
    stop: int = 2**31 - 1
    """First position after `start` where it is not allowed any more."""
    eos: EosRule = "keep"
    """The treatment of an intervention that proposes a stop token."""
    extrapolate: float = 0.0
    """g of (1 + g) log p_to - g log p_other; 0 is the intervention policy itself."""
    extrapolate_to: Policy = "rl"
    """The policy `to` of that formula."""
    stop_token_ids: tuple[int, ...] = ()
    trace: TraceMode = "budget"
    """How far both policies are measured: until the budget is spent, or to the end."""
