"""The embedded task: exact answers, two-digit chains, and a test split that no training draw can
reach.
"""

import hashlib
import random
import subprocess
import sys
from itertools import accumulate

import pytest

from evaluators.tasks.arithmetic import draw_training, is_held_out, load, problem, solve, terms


def test_the_worked_example_is_solved() -> None:
    example = problem("19+60+20-49")
    assert (example.id, example.question, example.answer) == (
        "arithmetic/19+60+20-49",
        "19+60+20-49=?",
        "50",
    )


@pytest.mark.parametrize(
    ("expression", "answer"), [("10+10", 20), ("99-89", 10), ("52-37+84", 99), ("11-10-10", -9)]
)
def test_solve_is_exact(expression: str, answer: int) -> None:
    assert solve(expression) == answer


@pytest.mark.parametrize(
    "expression", ["", "19", "19+", "19*20", "19+6", "19+600", "19 + 60", "__import__('os')"]
)
def test_solve_refuses_what_is_no_chain(expression: str) -> None:
    with pytest.raises(ValueError, match="not a chain"):
        solve(expression)


def test_the_test_set_is_200_distinct_held_out_chains_half_of_them_longer() -> None:
    problems = load()
    assert len({p.id for p in problems}) == len(problems) == 200
    expressions = [p.id.removeprefix("arithmetic/") for p in problems]
    assert all(is_held_out(expression) for expression in expressions)
    assert sorted(len(terms(expression)) for expression in expressions) == [3] * 100 + [4] * 100


def test_the_test_set_never_changes() -> None:
    listing = "\n".join(f"{p.id} {p.question} {p.answer}" for p in load())
    digest = hashlib.sha256(listing.encode()).hexdigest()
    assert digest == "070e60ab95fb4ca92d484b07b60a7161f90a8827d8a3e7f4b33feefa9574d0b2"


def test_every_intermediate_result_has_two_digits() -> None:
    rng = random.Random(0)
    drawn = [draw_training(rng, num_operations) for num_operations in (2, 3) for _ in range(500)]
    for expression in [p.id.removeprefix("arithmetic/") for p in load()] + drawn:
        assert all(10 <= value <= 99 for value in accumulate(terms(expression))), expression


def test_training_draws_are_never_held_out_yet_a_tenth_of_all_chains_is() -> None:
    rng = random.Random(1)
    assert not any(is_held_out(draw_training(rng, 3)) for _ in range(3000))
    random_chains = [f"{rng.randint(10, 99)}+{rng.randint(10, 99)}" for _ in range(3000)]
    assert 0.08 < sum(map(is_held_out, random_chains)) / 3000 < 0.12


def test_the_task_imports_nothing_heavy() -> None:
    code = (
        "import sys, evaluators.tasks.arithmetic; print({'torch', 'transformers', 'numpy'} &"
        " sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
