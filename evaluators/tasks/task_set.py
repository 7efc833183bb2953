"""A task set before it is read: how it is loaded, and its defaults for a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from engine.config.run_config import PromptName, RunConfig
from engine.core import GraderName, Problem


class LoadedProblems(NamedTuple):
    """What `TaskSet.load` returns: all problems of the source, before any limit."""

    problems: list[Problem]
    source: str
    """Path or hub id that the problems were read from, or "embedded"."""
    notes: list[str]
    """What the user should know about the reading, one line each."""


@dataclass(frozen=True, slots=True)
class TaskSet:
    """A named set of problems that is not read yet.

    The prompt, grader, samples and max_tokens are defaults: the user's settings go before them.
    """

    name: str
    description: str
    source: str
    """Path or hub id that the problems are read from, or "embedded"."""
    num_problems: int | None
    """Problems that a complete source holds; None for the user's own files."""
    load: Callable[[TaskSet, RunConfig], LoadedProblems]
    """Reads the file and the columns that the configuration names; raises TaskError."""
    prompt: PromptName = "boxed"
    grader: GraderName = "math"
    """How an answer is compared with the gold answer."""
    samples: int = 8
    """Responses per problem."""
    max_tokens: int = 8000
    """Length cap of a response, in tokens."""
    gated: bool = False
    """The text of the problems must not be published."""
