r"""How long does it take to read an answer out of a response, and is that linear in its length?

    python -m benchmarks.reading [--rounds 3] [--repeats 100_000] [--json FILE]

A response is one piece again and again, such as `\boxed{` or `{`: what a model writes that has lost
its way, and what makes a careless regular expression take the square of the length, or more. It is
read as the graders read it: the answer or a guess is looked for, and then compared with "5" by
notation alone, without math-verify. Seconds are CPU seconds of this process. Growth is that of a
response of twice the length; an aim is missed where it is more than MAX_GROWTH.
"""

from __future__ import annotations

import argparse
import time

from rich.table import Table

from benchmarks.result import Result, machine, options, row, spread
from evaluators.grading.comparators import COMPARATORS, GUESS_KINDS
from evaluators.grading.extraction import extract

MAX_GROWTH = 3.0  # for twice the length; 2 is linear, 4 quadratic
# A response shorter than this is too short for its time to be compared with that of another.
MIN_SECONDS = 0.05

# Pieces of responses that end in no answer.
BROKEN = [
    "\\boxed{", "{", "\\", "Answer:", ". Answer:", "Answer: \\boxed{", "\n", " ", "*", "</think>",
    "answer", "50", "the answer is ", "\nAnswer: \\boxed{}", "**. ", "- ", "1,",
]  # fmt: skip
# Pieces of answers.
PIECES = [
    "{", "}", "\\", "$", "(", ",", " ", "\n", "\\text{", "\\text{ a}", "\\frac{", "1", "1 ", "1,",
    "0.", "...", "a ", "A) ", "5 cm ", "cm ", "/", "\\,", "^2", "%", "=", "<", "x", ":", "the ",
    "is ", "or ", "_", "**", "e5", "\\begin{pmatrix}", "\N{SQUARE ROOT}(", "\N{SUPERSCRIPT TWO}",
    "\N{VULGAR FRACTION ONE HALF}", "\N{EN DASH}",
]  # fmt: skip


def main() -> None:
    """Read every response, print the table."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--repeats", type=int, default=100_000, help="of a piece in a response")
    asked = parser.parse_args()
    found = measure(asked)
    found.publish([table(found)], asked.json)


def measure(asked: argparse.Namespace) -> Result:
    """CPU seconds of every response and of one twice as long."""
    found = Result("reading", {"rounds": asked.rounds, "repeats": asked.repeats})
    growth: dict[str, float] = {}
    for piece in dict.fromkeys([*BROKEN, *PIECES]):
        short = [seconds_to_read(piece * asked.repeats) for _ in range(asked.rounds)]
        long = [seconds_to_read(piece * 2 * asked.repeats) for _ in range(asked.rounds)]
        found.measured[f"{piece!r}, CPU s"] = spread(short)
        growth[repr(piece)] = min(long) / max(min(short), MIN_SECONDS)
    found.details = {"growth": growth, "aims": {"growth": MAX_GROWTH}}
    return found


def seconds_to_read(response: str) -> float:
    """CPU seconds."""
    began = time.process_time()
    read(response)
    return time.process_time() - began


def read(response: str) -> None:
    """Look for an answer in a response as each grader does, and compare it as if it were one."""
    for name, compare in COMPARATORS.items():
        compare("5", response)
        extract(response, GUESS_KINDS[name])


def table(found: Result) -> Table:
    """The slowest responses for a reader, and all that grow too fast."""
    growth = found.details["growth"]
    settings = found.settings
    caption = f"{machine()}; {settings['repeats']:,} repeats, {settings['rounds']} rounds"
    shown = Table("piece", "CPU s", "min-max", f"growth, aim {MAX_GROWTH:g}", caption=caption)
    slowest = sorted(found.measured.items(), key=lambda item: -item[1]["median"])
    for place, (name, seconds) in enumerate(slowest):
        piece = name.removesuffix(", CPU s")
        if place < 10 or growth[piece] > MAX_GROWTH:
            shown.add_row(piece, *row(seconds, ".2f"), f"{growth[piece]:.1f}")
    return shown


if __name__ == "__main__":
    main()
