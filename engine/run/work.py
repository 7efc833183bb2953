"""Work: the trajectories that a run consists of, and what the pair needs to know to make each.

`Sweep` is the work of `xsample run`: every problem x sample x direction x budget. `Score` is the
work of `xsample score`: external responses, to be measured. Neither knows models, engines or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.arrays import Bools
from engine.config.run_config import RunConfig
from engine.config.switching import WITHOUT_THRESHOLD
from engine.core import (
    PRIMARY,
    ExternalResponse,
    ExternalResponses,
    GraderName,
    Problem,
    Task,
    Trajectory,
)
from engine.models.cost import Amount
from engine.run.match import Matched, fingerprint
from engine.sampling.noise import stream_key
from engine.sampling.rule import Rule
from engine.store.manifest import digest_rows

if TYPE_CHECKING:
    from engine.lockstep.job import Job

# The settings that decide the numbers of a sweep, beside the task and the models. All others say
# where the run is made and how fast.
_SWEEP_SETTINGS = (
    "limit", "samples", "direction", "budget", "criterion", "eos", "extrapolate", "trace",
    "max_tokens", "seed",
)  # fmt: skip


class Work(ABC):
    """What a run makes."""

    name: str
    source: str
    """Where the problems or responses come from, for people."""
    problems: tuple[Problem, ...]
    """The problems whose gold answers are known."""
    grader: GraderName
    gated: bool
    """Whether the text of the problems must not be published."""
    notes: tuple[str, ...]
    stage: str
    """What the engines do, for the display."""
    template: str | None = None
    """The user turn around a question; None where prompts come ready-made."""
    matched: Mapping[Trajectory, Matched] | None = None
    """What the run that a control matches did in each trajectory."""
    unused_settings: tuple[str, ...] = ()
    """Settings of RunConfig that mean nothing here, unless the user gives them."""

    @abstractmethod
    def trajectories(self) -> Iterator[Trajectory]:
        """Every trajectory; those that share a prompt follow each other, since it is cached."""

    @abstractmethod
    def job(self, key: Trajectory) -> Job:
        """What the pair needs to know to make a trajectory."""

    @abstractmethod
    def prompt(self, key: Trajectory) -> list[int]:
        """Token ids of a trajectory's prompt."""

    def stopped(self, keys: Sequence[Trajectory], stopped: Bools) -> Bools:
        """Which finished trajectories [F] ended by themselves; the engines say `stopped` [F]."""
        return stopped

    @abstractmethod
    def identity(self, rule: Rule) -> dict[str, Any]:
        """What must be equal for a run to be resumed, beside models and sampling settings."""

    def resolved_settings(self, rule: Rule) -> dict[str, Any]:
        """Settings that the user left out, with the values that they have here."""
        return {}

    @abstractmethod
    def expected(self) -> dict[str, Any]:
        """The trajectories as run.json names them, see `schema.expected_trajectories`."""

    @abstractmethod
    def describe(self) -> list[tuple[str, str]]:
        """Lines of name and value, for people."""

    @cached_property
    def num_trajectories(self) -> int:
        """How many trajectories there are."""
        return sum(1 for _ in self.trajectories())

    @property
    @abstractmethod
    def longest_prompt(self) -> int:
        """Length of the longest prompt, in tokens."""

    @property
    @abstractmethod
    def max_total_tokens(self) -> int:
        """Tokens of all responses together, at most."""

    @property
    @abstractmethod
    def amount(self) -> Amount:
        """What the engines are to carry, for an estimate of its cost."""


class Sweep(Work):
    """Every problem x sample x direction x budget.

    Args:
        config: The settings of the run.
        task: The problems to ask.
        prompts: Token ids of each prompt, in the order of `task.problems`.
        matched: What the matched run did in each trajectory; for a control only.
    """

    stage = "cross-sampling"

    def __init__(
        self,
        config: RunConfig,
        task: Task,
        prompts: list[list[int]],
        matched: Mapping[Trajectory, Matched] | None = None,
    ) -> None:
        self.config, self.task, self.matched = config, task, matched
        self.name, self.source, self.problems = task.name, task.source, task.problems
        self.grader, self.gated, self.notes = task.grader, task.gated, task.notes
        self.template = task.template
        self.samples = config.samples or task.samples
        self.max_tokens = config.max_tokens or task.max_tokens
        self._prompts = {
            problem.id: ids for problem, ids in zip(task.problems, prompts, strict=True)
        }

    def matching(self, matched: Mapping[Trajectory, Matched]) -> Sweep:
        """This sweep as a control with as many interventions as the matched run."""
        prompts = [self._prompts[problem.id] for problem in self.problems]
        return Sweep(self.config, self.task, prompts, matched)

    def trajectories(self) -> Iterator[Trajectory]:
        for problem in self.problems:
            for sample in range(self.samples):
                for direction in self.config.directions:
                    for budget in self.config.budget:
                        yield Trajectory(problem.id, sample, direction, budget)

    def job(self, key: Trajectory) -> Job:
        from engine.lockstep.job import Job

        noise_key = stream_key(self.config.seed, key.problem, key.sample)
        forward = PRIMARY[key.direction] == "base"
        job = Job(self.prompt(key), noise_key, forward, key.budget, self.max_tokens)
        if not self.matched:
            return job
        matched = self.matched[key]
        return job.with_random_positions(matched.interventions, matched.position_limit)

    def prompt(self, key: Trajectory) -> list[int]:
        return self._prompts[key.problem]

    def asked(self) -> dict[str, Any]:
        """What both policies are asked and what counts as right, in whatever order it was read."""
        asked = [
            (problem.id, problem.answer, self._prompts[problem.id]) for problem in self.problems
        ]
        return {
            "task": self.name,
            "template": self.template,
            "grader": self.grader,
            "ids_answers_and_prompts": digest_rows(asked),
            "max_tokens": self.max_tokens,
        }

    def identity(self, rule: Rule) -> dict[str, Any]:
        config = self.config.model_dump(mode="json") | self.resolved_settings(rule)
        return (
            {name: config[name] for name in _SWEEP_SETTINGS}
            | {"matched": fingerprint(self.matched) if self.matched else None}
            | self.asked()
            | {name: config[name] for name in ("threshold", "extrapolate_to")}
            | {"window": [rule.start, rule.stop]}
        )

    def resolved_settings(self, rule: Rule) -> dict[str, Any]:
        takes_threshold = self.config.criterion not in WITHOUT_THRESHOLD and not self.config.match
        return {
            "threshold": rule.threshold if takes_threshold else None,
            "extrapolate_to": rule.extrapolate_to if rule.extrapolate else None,
            "samples": self.samples,
            "max_tokens": self.max_tokens,
        }

    def expected(self) -> dict[str, Any]:
        return {
            "problems": [problem.id for problem in self.problems],
            "samples": self.samples,
            "directions": list(self.config.directions),
            "budgets": list(self.config.budget),
        }

    def describe(self) -> list[tuple[str, str]]:
        arms = f"{self.samples} samples a problem, direction and budget"
        return [
            ("problems", f"{len(self.problems)} from {self.source}"),
            ("grader", self.grader),
            ("trajectories", f"{self.num_trajectories} ({arms})"),
            ("tokens", f"at most {self.max_total_tokens:,} ({self.max_tokens} a response)"),
        ]

    @property
    def longest_prompt(self) -> int:
        return max(map(len, self._prompts.values()))

    @property
    def max_total_tokens(self) -> int:
        return self.num_trajectories * self.max_tokens

    @property
    def amount(self) -> Amount:
        """Both engines carry a response with the largest budget; the smaller ones fork from it.

        What is made alone is measured where the trace is full.
        """
        arms = len(self.problems) * self.samples
        num_alone = len(self.config.budget)
        if self.matched:
            num_alone = 0
        elif self.config.budget[-1] != 0:
            num_alone -= 1
        solo: dict[str, int] = {
            PRIMARY[direction]: num_alone * arms for direction in self.config.directions
        }
        total_solo = sum(solo.values())
        return Amount(
            self.num_trajectories - total_solo,
            solo,
            self.longest_prompt,
            self.max_tokens,
            is_limit=True,
            num_measured=total_solo if self.config.trace == "full" else 0,
        )


class Score(Work):
    """External responses, measured token by token."""

    stage = "measuring"
    unused_settings = (
        *_SWEEP_SETTINGS, "threshold", "window", "extrapolate_to", "match", "task",
    )  # fmt: skip

    def __init__(self, external: ExternalResponses) -> None:
        self.name, self.source, self.problems = external.name, external.source, external.problems
        self.grader, self.gated, self.notes = external.grader, external.gated, external.notes
        self._responses: dict[Trajectory, ExternalResponse] = {
            response.key: response for response in external.responses
        }

    def trajectories(self) -> Iterator[Trajectory]:
        return iter(self._responses)

    def job(self, key: Trajectory) -> Job:
        from engine.lockstep.job import Job

        external = self._responses[key]
        return Job(
            external.prompt, 0, True, None, len(external.response), external=external.response
        )

    def prompt(self, key: Trajectory) -> list[int]:
        return self._responses[key].prompt

    def stopped(self, keys: Sequence[Trajectory], stopped: Bools) -> Bools:
        """As the source says: an engine always ends an external response by its length."""
        return np.array([self._responses[key].stopped for key in keys], np.bool_)

    def identity(self, rule: Rule) -> dict[str, Any]:
        responses = [
            (*map(str, external.key), external.prompt, external.response, external.stopped)
            for external in self._responses.values()
        ]
        answers = [(problem.id, problem.answer, problem.options) for problem in self.problems]
        return {
            "responses": digest_rows(responses),
            "answers": digest_rows(answers),
            "grader": self.grader if answers else None,
        }

    def expected(self) -> dict[str, Any]:
        return {"trajectories": [list(key) for key in self._responses]}

    def describe(self) -> list[tuple[str, str]]:
        problems = f"{len(self.problems)} with a gold answer" if self.problems else ""
        return [
            ("responses", f"{len(self._responses):,} from {self.source}"),
            ("problems", problems or "no gold answer is known"),
            ("tokens", f"{self.max_total_tokens:,}"),
        ]

    @property
    def longest_prompt(self) -> int:
        return max(len(external.prompt) for external in self._responses.values())

    @property
    def max_total_tokens(self) -> int:
        return sum(len(external.response) for external in self._responses.values())

    @property
    def amount(self) -> Amount:
        number = len(self._responses)
        length = self.max_total_tokens / max(1, number)
        return Amount(0, {}, self.longest_prompt, length, is_limit=False, num_measured=number)
