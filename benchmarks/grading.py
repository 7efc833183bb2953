r"""How many answers a second are graded? Whole responses through a Grader, in and out, on two
grading processes.

    python -m benchmarks.grading [--rounds 5] [--workers 2] [--json FILE]

`integer` is AIME: a plain integer, right or wrong, decided without math-verify. `math_verify` is a
mix of the formulas that reach it: roots, polynomials, lists, intervals, matrices, half of them
right and written differently. All answers are new in every round, so nothing is remembered; the
processes have started before anything is timed. Each response is 4,000 characters of reasoning that
end in a box.
"""

from __future__ import annotations

import argparse
import time
from importlib.metadata import version
from random import Random

from rich.table import Table

from benchmarks.result import Result, machine, options, row, spread
from engine.core import Problem, Trajectory
from evaluators.grading.comparators import COMPARATORS
from evaluators.grading.formula import Question
from evaluators.grading.grader import Grader

AIMS = {"integer": 2_000, "math_verify": 100}  # answers a second
REASONING = "Let $x_1$ be the first of {4, 5}; then $\\frac{x_1}{2} = 2$, or so it seems. " * 50

LeaseRunner = tuple[str, str]  # gold answer, answer


def main() -> None:
    """Run the rounds, print the table."""
    asked = _options()
    answers = {"integer": (integers, asked.integers), "math_verify": (formulas, asked.formulas)}
    rates: dict[str, list[float]] = {name: [] for name in answers}
    for seed in range(asked.rounds):
        for name, (make, number) in answers.items():
            rates[name].append(answers_per_second(make(Random(seed), number), asked.workers))
    settings = {"workers": asked.workers, "rounds": asked.rounds}
    found = Result("grading", settings | {name: number for name, (_, number) in answers.items()})
    found.measured = {f"{name}, answers/s": spread(values) for name, values in rates.items()}
    found.details = {
        "aims_answers_s": AIMS,
        "versions": {name: version(name) for name in ("math-verify", "sympy")},
    }
    found.publish([table(found)], asked.json)


def answers_per_second(pairs: list[LeaseRunner], workers: int) -> float:
    """From the first `submit` to the last grade; the right and the wrong half must come out as
    such.
    """
    problems = [Problem(str(place), "", gold) for place, (gold, _) in enumerate(pairs)]
    responses = [rf"{REASONING}So the answer is $\boxed{{{answer}}}$." for _, answer in pairs]
    with Grader(
        [*problems, *(Problem(f"start {n}", "", f"x+{n}") for n in range(workers))], "math", workers
    ) as grader:
        for n in range(workers):
            grader.submit(Trajectory(f"start {n}", 0, "forward", 0), rf"\boxed{{{n}+x}}")
        grader.finish()
        began = time.perf_counter()
        for place, response in enumerate(responses):
            grader.submit(Trajectory(str(place), 0, "forward", 0), response)
        grades = grader.finish()
        seconds = time.perf_counter() - began
    right = sum(grade.verdict == "correct" for grade in grades)
    assert right == len(pairs) // 2, f"{right} of {len(pairs)} are right: half of them should be"
    return len(pairs) / seconds


def integers(random: Random, number: int) -> list[LeaseRunner]:
    """AIME's answers, 0 to 999, as models write them."""
    golds = [random.randrange(1000) for _ in range(number)]
    return [
        (f"{gold:03d}", str(gold if place % 2 else gold + 1)) for place, gold in enumerate(golds)
    ]


def formulas(random: Random, number: int) -> list[LeaseRunner]:
    """Of each kind as many, all of them for math-verify."""
    pairs = []
    for place in range(number):
        a, b = random.sample(range(2, 1_000), 2)
        kinds = (
            (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}"),
            (rf"\frac{{{a}\pi}}{{{b}}}", rf"{a}\pi/{b}"),
            (f"x^2 - {a * a}", f"(x-{a})(x+{a})"),
            (rf"\{{{a}, {b}\}}", f"{b}, {a}"),
            (rf"[{a}, \infty)", rf"x \ge {a}"),
            (
                rf"\begin{{pmatrix}} {a} \\ {b} \end{{pmatrix}}",
                rf"\begin{{bmatrix}} {a} \\ {2 * b}/2 \end{{bmatrix}}",
            ),
            (rf"\frac{{{a}}}{{\sqrt{{{b}}}}}", rf"\frac{{{a}\sqrt{{{b}}}}}{{{b}}}"),
            (f"y = {a}x + {b}", f"y = {b} + {a}x"),
        )
        gold, right = kinds[place // 2 % len(kinds)]
        pairs.append((gold, right if place % 2 else right.replace(str(a), str(a + 1)) + f" + {b}"))
    assert all(isinstance(COMPARATORS["math"](gold, answer), Question) for gold, answer in pairs), (
        "not for math-verify"
    )
    return pairs


def table(found: Result) -> Table:
    """The result for a reader."""
    versions = ", ".join(f"{name} {number}" for name, number in found.details["versions"].items())
    caption = (
        f"{machine()}; {found.settings['workers']} processes; {found.settings['rounds']} rounds;"
        f" {versions}"
    )
    shown = Table("answers", "a round", "a second", "min-max", "aim", caption=caption)
    for name, aim in AIMS.items():
        shown.add_row(
            name,
            f"{found.settings[name]:,}",
            *row(found.measured[f"{name}, answers/s"], ",.0f"),
            f"{aim:,}",
        )
    return shown


def _options() -> argparse.Namespace:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--integers", type=int, default=20_000, help="answers a round")
    parser.add_argument("--formulas", type=int, default=1_600, help="answers a round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
