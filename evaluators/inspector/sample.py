"""The nouns of the inspector: a sample of a problem, with all its trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from engine.core import PRIMARY, Trajectory
from engine.store.manifest import is_scored

HIDDEN = "\N{LIGHT SHADE}"  # stands for a character that is redacted


@dataclass(frozen=True, slots=True)
class Traced:
    """One trajectory with the trace of its tokens."""

    key: Trajectory
    rows: pa.Table
    """One row per token in order, with the columns of `engine.store.schema.TOKENS`.

    Only position and token are filled where the run's own rows cannot be used.
    """
    response: Mapping[str, Any]
    """Its row of `engine.store.schema.RESPONSES`, without prompt and text."""
    verdict: str | None = None
    """As in `engine.store.schema.GRADES`; None where it is not graded."""
    answer: str | None = None
    """The answer that was extracted from it, or a guess."""

    @property
    def tokens(self) -> list[int]:
        """The token ids."""
        return list(self.rows["token"].to_pylist())


@dataclass(frozen=True, slots=True)
class Sample:
    """All trajectories of one sample of a problem."""

    run: str
    problem: str
    sample: int
    manifest: Mapping[str, Any]
    question: str | None
    """None where the run does not keep it."""
    prompt: str
    """As the models saw it, token by token."""
    answer: str | None
    """The gold answer; None where it is not known."""
    gated: bool
    """Whether the text must not be shown by default; also true where the run does not tell."""
    trajectories: tuple[Traced, ...]
    texts: Mapping[int, str]
    """The text of each token id, decoded by itself."""
    notes: tuple[str, ...] = ()
    """What is missing or was left out, one line each."""
    redacted: bool = False
    """Whether texts are blocks, so that token ids must not be shown either."""

    @property
    def is_scored(self) -> bool:
        """Whether the responses were given to `xsample score`, which only measured them."""
        return is_scored(self.manifest)

    def primary(self, key: Trajectory) -> str | None:
        """The policy that is primary in a trajectory.

        None for a given response, which neither policy sampled here. All responses of a scored run
        are given: the direction in their key is that of the run that sampled them.
        """
        return None if self.is_scored else PRIMARY.get(key.direction)

    @property
    def has_primary(self) -> bool:
        """Whether interventions were possible in any of the trajectories."""
        return any(self.primary(traced.key) for traced in self.trajectories)

    def text(self, token: int) -> str:
        """The text of a token; its id, such as `#123`, where the text is not known."""
        return self.texts.get(token) or (HIDDEN if self.redacted else f"#{token}")
