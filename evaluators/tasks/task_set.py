"""What a task set brings along: how it is loaded, and what it runs with when the user says nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from engine.config.run_config import PromptName, RunConfig
from engine.core import GraderName, Problem


class Loaded(NamedTuple):
    """What `TaskSet.load` found: all problems of the source, before any limit; notes are for the
    user, a line each.
    """

    problems: list[Problem]
    source: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class TaskSet:
    """A set of problems by name, not read yet.

    source:       hub id that it is loaded from, or "embedded" num_problems: how many there should
                  be; None where nobody can know
    samples:      samples a problem; max_tokens: length cap of a response, in tokens; both where the
                  user gives none
    gated:        its text must not be published
    load:         reads it, with the columns and the file that the configuration names; raises
                  TaskError
    """

    name: str
    description: str
    source: str
    num_problems: int | None
    load: Callable[[TaskSet, RunConfig], Loaded]
    prompt: PromptName = "boxed"
    grader: GraderName = "math"
    samples: int = 8
    max_tokens: int = 8000
    gated: bool = False
