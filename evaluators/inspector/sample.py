"""What the inspector shows: all trajectories of one (problem, sample). Nouns only."""

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
    """One trajectory.

    rows:      a row a token in order, with the columns of record.TOKENS; only position and token
               are filled where the run's own rows cannot be used
    response:  its row of record.RESPONSES, without prompt and text
    verdict:   as in record.GRADES; None: not graded
    answer:    what its grade found as its answer, or as a guess
    """

    key: Trajectory
    rows: pa.Table
    response: Mapping[str, Any]
    verdict: str | None = None
    answer: str | None = None

    @property
    def tokens(self) -> list[int]:
        """Its token ids."""
        return list(self.rows["token"].to_pylist())


@dataclass(frozen=True, slots=True)
class Sample:
    """All trajectories of one (problem, sample).

    question:  None where the run does not keep it; prompt: as the models saw it, token by token
    answer:    the gold answer; None where none is known
    gated:     the text must not be shown unless it is asked for; also where the run does not say
    texts:     token id -> its text, decoded by itself
    notes:     what is missing or was left out, a line each
    redacted:  question, answers and texts are blocks, and token ids are not to be shown
    """

    run: str
    problem: str
    sample: int
    manifest: Mapping[str, Any]
    question: str | None
    prompt: str
    answer: str | None
    gated: bool
    trajectories: tuple[Traced, ...]
    texts: Mapping[int, str]
    notes: tuple[str, ...] = ()
    redacted: bool = False

    @property
    def is_scored(self) -> bool:
        """Whether the responses are given ones that `xsample score` measured."""
        return is_scored(self.manifest)

    def primary(self, key: Trajectory) -> str | None:
        """The policy that is primary in a trajectory; None of a given response, which neither made
        here.

        Those of a scored run are given whatever their key says: it is the name that they had where
        they were made.
        """
        return None if self.is_scored else PRIMARY.get(key.direction)

    @property
    def has_primary(self) -> bool:
        """Whether somebody could intervene in any of the trajectories."""
        return any(self.primary(traced.key) for traced in self.trajectories)

    def text(self, token: int) -> str:
        """The text of a token; `#123` where it is not known."""
        return self.texts.get(token) or (HIDDEN if self.redacted else f"#{token}")
