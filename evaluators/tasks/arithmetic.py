"""The embedded task: chains of two-digit additions and subtractions.

    question  19+60+20-49=?
    id        arithmetic/19+60+20-49
    answer    50                      19+60 = 79,  79+20 = 99,  99-49 = 50

A chain has two or three operations, is read from left to right, and every intermediate result has
two digits. A hash of the expression alone decides whether a problem belongs to the test split, so
training problems drawn here are never test problems, whatever the seed. Imports nothing heavy.
"""

import hashlib
import random
import re

from engine.config.run_config import RunConfig
from engine.core import Problem
from engine.errors import TaskError
from evaluators.tasks.task_set import LoadedProblems, TaskSet

LOWEST, HIGHEST = 10, 99
NUM_TEST_PROBLEMS = 200
HELD_OUT_SHARE = 0.1
_TEST_SEED = 20260322
_EXPRESSION = re.compile(r"\d\d(?:[+-]\d\d)+")


def load() -> list[Problem]:
    """The fixed test set: distinct chains, half of two operations and half of three."""
    rng = random.Random(_TEST_SEED)
    expressions: dict[str, None] = {}
    while len(expressions) < NUM_TEST_PROBLEMS:
        expressions[_draw(rng, num_operations=2 + len(expressions) % 2, held_out=True)] = None
    return [problem(expression) for expression in expressions]


def problem(expression: str) -> Problem:
    """The problem that asks for the value of an expression."""
    return Problem(
        id=f"arithmetic/{expression}", question=question(expression), answer=str(solve(expression))
    )


def question(expression: str) -> str:
    """The question as the models read it: `19+60=?`."""
    return f"{expression}=?"


def solve(expression: str) -> int:
    """The exact value of a chain.

    Raises:
        ValueError: The text is no chain of two-digit numbers joined by + and -.
    """
    return sum(terms(expression))


def terms(expression: str) -> list[int]:
    """The signed numbers of a chain.

    Raises:
        ValueError: The text is no chain of two-digit numbers joined by + and -.

    Example:
        >>> terms("19+60-49")
        [19, 60, -49]
    """
    if not _EXPRESSION.fullmatch(expression):
        raise ValueError(
            f"not a chain of two-digit additions and subtractions: {expression!r}; write 19+60-49"
        )
    return [int(term) for term in re.findall(r"[+-]?\d\d", expression)]


def is_held_out(expression: str) -> bool:
    """True when the expression belongs to the test split.

    The first four bytes of its SHA-256, as a share of 2**32, are below HELD_OUT_SHARE.
    """
    hashed = int.from_bytes(hashlib.sha256(expression.encode()).digest()[:4], "big")
    return hashed < HELD_OUT_SHARE * 2**32


def draw_training(rng: random.Random, num_operations: int) -> str:
    """A random chain outside the test split.

    Args:
        rng: Source of randomness.
        num_operations: Additions and subtractions in the chain.
    """
    return _draw(rng, num_operations, held_out=False)


def _draw(rng: random.Random, num_operations: int, held_out: bool) -> str:
    while True:
        expression = _random_chain(rng, num_operations)
        if is_held_out(expression) == held_out:
            return expression


def _random_chain(rng: random.Random, num_operations: int) -> str:
    value = rng.randint(LOWEST, HIGHEST)
    expression = str(value)
    for _ in range(num_operations):
        can_add, can_subtract = value + LOWEST <= HIGHEST, value - LOWEST >= LOWEST
        if can_add and (not can_subtract or rng.random() < 0.5):
            term = rng.randint(LOWEST, HIGHEST - value)
        else:
            term = -rng.randint(LOWEST, value - LOWEST)
        value += term
        expression += f"{term:+d}"
    return expression


def _load(task_set: TaskSet, config: RunConfig) -> LoadedProblems:
    for option in ("task_data", "question_column", "answer_column", "id_column"):
        if (value := getattr(config, option)) is not None:
            raise TaskError(
                f"{option} is {value!r}, but the task {task_set.name!r} is embedded and has no data"
                " to read"
            )
    return LoadedProblems(load(), task_set.source, [])


ARITHMETIC = TaskSet(
    "arithmetic",
    "chains of two-digit sums, for the embedded pair",
    "embedded",
    num_problems=NUM_TEST_PROBLEMS,
    load=_load,
    prompt="plain",
    max_tokens=192,
)
