"""A contender as the command sees it: asked with a seed for responses, each rival in a Ray actor of
its own.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ray

from benchmarks.rivals.ask import Ask
from benchmarks.rivals.same import same_distribution

# Budget -> responses in the order of the prompts.
Made = Mapping[int | None, Sequence[list[int]]]
_CLASSES = {
    "per_token": ("benchmarks.rivals.per_token", "PerToken"),
    "per_token_by_default": ("benchmarks.rivals.per_token", "PerTokenByDefault"),
    "transformers": ("benchmarks.rivals.transformers_loop", "TransformersLoop"),
    "http": ("benchmarks.rivals.http_servers", "HttpServers"),
    "regenerate": ("benchmarks.rivals.regenerate", "Regenerate"),
}
_CPU_ONLY = ("transformers", "http")


@dataclass
class Contender:
    """make: seed -> responses. unit: what is counted in them. seconds a unit and everything made, a
    round each.
    """

    name: str
    make: Callable[[int], Made]
    unit: Callable[[Made], int]
    seconds: list[float] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)

    def take_turn(self, seed: int) -> None:
        """Make responses against the clock."""
        began = time.perf_counter()
        made = self.make(seed)
        seconds = time.perf_counter() - began
        self.made.append(made)
        self.units.append(self.unit(made))
        self.seconds.append(seconds / self.units[-1])


def tokens(made: Made) -> int:
    """Tokens of all responses."""
    return sum(len(response) for responses in made.values() for response in responses)


def curves(made: Made) -> int:
    """Responses of one budget."""
    return len(next(iter(made.values())))


def p_value(ours: Contender, theirs: Contender, problems: Sequence[str]) -> float:
    """Of the same distribution, over all rounds; problems: of each prompt. Of several budgets the
    least, corrected.
    """
    budgets = list(ours.made[0])
    return min(
        1.0,
        len(budgets)
        * min(_p_value(ours.made, theirs.made, budget, problems) for budget in budgets),
    )


def _p_value(
    ours: list[Made], theirs: list[Made], budget: int | None, problems: Sequence[str]
) -> float:
    our, their = (_by_problem(rounds, budget, problems) for rounds in (ours, theirs))
    shared = [problem for problem in our if problem in their]
    return same_distribution(
        [our[problem] for problem in shared], [their[problem] for problem in shared]
    )


def _by_problem(
    rounds: Iterable[Made], budget: int | None, problems: Sequence[str]
) -> dict[str, list[list[int]]]:
    found: dict[str, list[list[int]]] = {}
    for made in rounds:
        for problem, response in zip(
            problems, made[budget], strict=False
        ):  # a slow one has made the first few
            found.setdefault(problem, []).append(response)
    return found


def start(
    names: Iterable[str], models: tuple[str, str], max_model_len: int, device: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """The rivals that can run here, loaded, and why the others cannot."""
    rivals, reasons = {}, {}
    for name in names:
        if name in _CPU_ONLY and device != "cpu":
            reasons[name] = (
                "written for the CPU; beside a pair on a GPU it would compare two devices"
            )
            continue
        try:
            rivals[name] = _start(name, models, max_model_len)
        except (ImportError, ray.exceptions.RayError) as error:
            cause = getattr(error, "cause", None) or error
            reasons[name] = (
                f"{type(cause).__name__}: {(str(cause).strip().splitlines() or ['no reason'])[-1]}"
            )
    return rivals, reasons


def _start(name: str, models: tuple[str, str], max_model_len: int) -> Any:
    module_name, class_name = _CLASSES[name]
    environment = importlib.import_module(module_name).ENVIRONMENT | {"HF_HUB_OFFLINE": "1"}
    host = ray.remote(_Host).options(num_cpus=0, runtime_env={"env_vars": environment})
    rival = host.remote(module_name, class_name, *models, max_model_len)
    try:
        ray.get(rival.ready.remote())
    except ray.exceptions.RayError:
        end([rival])
        raise
    return rival


class _Host:
    """The actor that holds a rival. A rival with coroutines would itself be an asynchronous actor,
    inside a loop.
    """

    def __init__(self, module_name: str, class_name: str, *arguments: Any) -> None:
        self._rival = getattr(importlib.import_module(module_name), class_name)(*arguments)

    def ready(self) -> None:
        self._rival.ready()

    def respond(self, ask: Ask, seed: int) -> list[list[int]]:
        return list(self._rival.respond(ask, seed))

    def curve(self, ask: Ask, seed: int) -> Made:
        return dict(self._rival.curve(ask, seed))

    def close(self) -> None:
        """End what the rival has started beside this process, if it does."""
        getattr(self._rival, "close", lambda: None)()


def end(rivals: Iterable[Any]) -> None:
    """Let each end what it has started, and end it."""
    for rival in rivals:
        with suppress(ray.exceptions.RayError):  # it may be that its process has died
            ray.get(rival.close.remote())
        ray.kill(rival)
