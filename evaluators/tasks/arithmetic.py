"""The embedded task: chains of two-digit additions and subtractions.

    question  19+60+20-49=?        id  arithmetic/19+60+20-49        answer  50

    19+60 = 79,  79+20 = 99,  99-49 = 50: two or three operations, left to right, and every
    intermediate result has two digits.

A problem belongs to the test split by a hash of its expression alone, so that whoever draws
training problems here cannot meet a test problem, whatever the seed. Nothing heavy is imported.
"""

import hashlib
import random
import re

from engine.config.run_config import RunConfig
from engine.core import Problem
from engine.errors import TaskError
from evaluators.tasks.task_set import Loaded, TaskSet

LOWEST, HIGHEST = 10, 99
NUM_TEST_PROBLEMS = 200
HELD_OUT_SHARE = 0.1
_TEST_SEED = 20260322
_EXPRESSION = re.compile(r"\d\d(?:[+-]\d\d)+")


def load() -> list[Problem]:
    """The fixed test set: as many chains of two operations as of three, none twice."""
    rng = random.Random(_TEST_SEED)
    expressions: dict[str, None] = {}
    while len(expressions) < NUM_TEST_PROBLEMS:
        expressions[_draw(rng, num_operations=2 + len(expressions) % 2, held_out=True)] = None
    return [problem(expression) for expression in expressions]


def problem(expression: str) -> Problem:
    return Problem(
        id=f"arithmetic/{expression}", question=question(expression), answer=str(solve(expression))
    )


def question(expression: str) -> str:
    return f"{expression}=?"


def solve(expression: str) -> int:
    """The exact result. Raises ValueError for anything but two-digit numbers joined by + and -."""
    return sum(terms(expression))


def terms(expression: str) -> list[int]:
    """The signed numbers of a chain: ``19+60-49`` is ``[19, 60, -49]``."""
    if not _EXPRESSION.fullmatch(expression):
        raise ValueError(
            f"not a chain of two-digit additions and subtractions: {expression!r}; write 19+60-49"
        )
    return [int(term) for term in re.findall(r"[+-]?\d\d", expression)]


def is_held_out(expression: str) -> bool:
    """True for the test split: the first four bytes of the expression's SHA-256 fall in its
    bucket.
    """
    bucket = int.from_bytes(hashlib.sha256(expression.encode()).digest()[:4], "big")
    return bucket < HELD_OUT_SHARE * 2**32


def draw_training(rng: random.Random, num_operations: int) -> str:
    """A random expression that is never in the test split."""
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


def _load(task_set: TaskSet, config: RunConfig) -> Loaded:
    for option in ("task_data", "question_column", "answer_column", "id_column"):
        if (value := getattr(config, option)) is not None:
            raise TaskError(
                f"{option} is {value!r}, but the task {task_set.name!r} is embedded and has no data"
                " to read"
            )
    return Loaded(load(), task_set.source, [])


ARITHMETIC = TaskSet(
    "arithmetic",
    "chains of two-digit sums, for the embedded pair",
    "embedded",
    num_problems=NUM_TEST_PROBLEMS,
    load=_load,
    prompt="plain",
    max_tokens=192,
)
