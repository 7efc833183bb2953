"""Work: the trajectories that a run consists of, and what the pair needs to know to make each.

`Sweep` is the work of `xsample run`, every problem x sample x direction x budget; `Score` that of
`xsample score`, responses that are given. Neither knows models, engines or files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from engine.config.run_config import DIRECTIONS, RunConfig
from engine.core import ExternalResponse, ExternalResponses, GraderName, Problem, Task, Trajectory
from engine.run.match import Matched, fingerprint
from engine.sampling.noise import stream_key
from engine.store.manifest import digest_rows

if TYPE_CHECKING:
    from engine.lockstep.job import Job

# What decides the numbers of a sweep, beside the task and the models. The rest says where and how
# fast.
_SWEEP_SETTINGS = (
    "limit", "samples", "direction", "budget", "criterion", "eos", "extrapolate", "trace",
    "max_tokens", "seed",
)  # fmt: skip


class Work(ABC):
    """What is made. name, source: for people; problems: with their gold answers, empty where none
    are known.
    """

    name: str
    source: str
    problems: tuple[Problem, ...]
    grader: GraderName
    gated: bool
    notes: tuple[str, ...]
    unused_settings: tuple[str, ...] = ()  # of RunConfig, unless they are given

    @abstractmethod
    def trajectories(self) -> Iterator[Trajectory]:
        """Every trajectory, those that share a prompt next to each other: it is cached."""

    @abstractmethod
    def job(self, key: Trajectory) -> Job:
        """What the pair needs to know to make a trajectory."""

    @abstractmethod
    def prompt(self, key: Trajectory) -> list[int]:
        """Its prompt, token ids."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed, beside models and sampling."""

    @abstractmethod
    def expected(self) -> dict[str, Any]:
        """The trajectories as run.json has them, see `record.expected_trajectories`."""

    @abstractmethod
    def describe(self) -> list[tuple[str, str]]:
        """Lines of name and value for people."""

    @cached_property
    def num_trajectories(self) -> int:
        return sum(1 for _ in self.trajectories())

    @property
    @abstractmethod
    def longest_prompt(self) -> int:
        """Tokens."""

    @property
    @abstractmethod
    def most_tokens(self) -> int:
        """Tokens of all responses together, at most."""


class Sweep(Work):
    """Every problem x sample x direction x budget. prompts: token ids, in the order of
    task.problems.
    """

    def __init__(self, config: RunConfig, task: Task, prompts: list[list[int]]) -> None:
        self.config, self.task = config, task
        self.name, self.source, self.problems = task.name, task.source, task.problems
        self.grader, self.gated, self.notes = task.grader, task.gated, task.notes
        self.samples = config.samples or task.samples
        self.max_tokens = config.max_tokens or task.max_tokens
        self.matched: Mapping[Trajectory, Matched] | None = None
        self._prompts = {
            problem.id: ids for problem, ids in zip(task.problems, prompts, strict=True)
        }

    def trajectories(self) -> Iterator[Trajectory]:
        for problem in self.problems:
            for sample in range(self.samples):
                for direction in self.config.directions:
                    for budget in self.config.budget:
                        yield Trajectory(problem.id, sample, direction, budget)

    def job(self, key: Trajectory) -> Job:
        from engine.lockstep.job import Job

        noise_key = stream_key(self.config.seed, key.problem, key.sample)
        forward = key.direction == DIRECTIONS[0]
        job = Job(self.prompt(key), noise_key, forward, key.budget, self.max_tokens)
        return job.with_random_positions(*self.matched[key]) if self.matched else job

    def prompt(self, key: Trajectory) -> list[int]:
        return self._prompts[key.problem]

    def asked(self) -> dict[str, Any]:
        """What both policies are asked, and what counts as right; independent of the order of the
        source.
        """
        asked = [
            (problem.id, problem.answer, self._prompts[problem.id]) for problem in self.problems
        ]
        return {
            "task": self.name,
            "template": self.task.template,
            "grader": self.grader,
            "ids_answers_and_prompts": digest_rows(asked),
            "max_tokens": self.max_tokens,
        }

    def identity(self) -> dict[str, Any]:
        config = self.config.model_dump(mode="json") | {
            "samples": self.samples,
            "max_tokens": self.max_tokens,
        }
        settings = {name: config[name] for name in _SWEEP_SETTINGS}
        matched = fingerprint(self.matched) if self.matched else None
        return settings | {"matched": matched} | self.asked()

    def expected(self) -> dict[str, Any]:
        return {
            "problems": [problem.id for problem in self.problems],
            "samples": self.samples,
            "directions": list(self.config.directions),
            "budgets": list(self.config.budget),
        }

    def describe(self) -> list[tuple[str, str]]:
        return [
            ("problems", f"{len(self.problems)} from {self.source}"),
            ("grader", self.grader),
            (
                "trajectories",
                f"{self.num_trajectories} ({self.samples} samples a problem, direction and budget)",
            ),
            ("tokens", f"at most {self.most_tokens:,} ({self.max_tokens} a response)"),
        ]

    @property
    def longest_prompt(self) -> int:
        return max(map(len, self._prompts.values()))

    @property
    def most_tokens(self) -> int:
        return self.num_trajectories * self.max_tokens


class Score(Work):
    """Responses that are given, token by token."""

    unused_settings = (*_SWEEP_SETTINGS, "threshold", "window", "extrapolate_to", "match", "task")

    def __init__(self, given: ExternalResponses) -> None:
        self.name, self.source, self.problems = given.name, given.source, given.problems
        self.grader, self.gated, self.notes = given.grader, given.gated, given.notes
        self._given: dict[Trajectory, ExternalResponse] = {one.key: one for one in given.responses}

    def trajectories(self) -> Iterator[Trajectory]:
        return iter(self._given)

    def job(self, key: Trajectory) -> Job:
        from engine.lockstep.job import Job

        given = self._given[key]
        return Job(given.prompt, 0, True, None, len(given.response), given=given.response)

    def prompt(self, key: Trajectory) -> list[int]:
        return self._given[key].prompt

    def stopped(self, key: Trajectory) -> bool:
        """Whether the response ended by itself."""
        return self._given[key].stopped

    def identity(self) -> dict[str, Any]:
        given = [
            (*map(str, one.key), one.prompt, one.response, one.stopped)
            for one in self._given.values()
        ]
        answers = [(problem.id, problem.answer, problem.options) for problem in self.problems]
        return {
            "responses": digest_rows(given),
            "answers": digest_rows(answers),
            "grader": self.grader if answers else None,
        }

    def expected(self) -> dict[str, Any]:
        return {"trajectories": [list(key) for key in self._given]}

    def describe(self) -> list[tuple[str, str]]:
        return [
            ("responses", f"{len(self._given):,} from {self.source}"),
            (
                "problems",
                f"{len(self.problems)} with a gold answer"
                if self.problems
                else "no gold answer is known",
            ),
            ("tokens", f"{self.most_tokens:,}"),
        ]

    @property
    def longest_prompt(self) -> int:
        return max(len(one.prompt) for one in self._given.values())

    @property
    def most_tokens(self) -> int:
        return sum(len(one.response) for one in self._given.values())
