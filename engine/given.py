"""Given responses: what was answered elsewhere and is to be measured token by token. Nouns only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.problem import GraderName, Problem

if TYPE_CHECKING:  # preflight, which needs these nouns, starts without pyarrow
    from engine.record import Trajectory


@dataclass(frozen=True, slots=True)
class Given:
    """One response. prompt, response: token ids; stopped: it ended by itself, else by a length cap.

    where: for messages, the file and row or the run and trajectory that it comes from.
    """

    key: Trajectory
    prompt: list[int]
    response: list[int]
    stopped: bool
    where: str


@dataclass(frozen=True, slots=True)
class GivenSet:
    """Responses from one source, keys unique, and the problems that they answer, as far as gold
    answers are known.
    """

    name: str
    source: str
    responses: tuple[Given, ...]
    problems: tuple[Problem, ...] = ()
    grader: GraderName = "math"
    gated: bool = False
    notes: tuple[str, ...] = ()
