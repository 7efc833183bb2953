"""Worked answers in mixed styles: what the base model is pre-trained on.

    Q: 58+26-31=? A: First 58+26: ones 8+6=14, carry 1, tens 5+2+1=8, giving 84. Then 84-31 is about
    49. Hence \\boxed{49}.

At every step the writer either works the sum out or guesses, and where a carry or borrow is due it
either writes it or drops it. The other choices (`First` or `Begin`, ...) change no answer.
"""

import random
from dataclasses import dataclass

from evaluators.tasks.arithmetic import HIGHEST, LOWEST, draw_training, question, terms

OPENINGS = (" First", " Begin")
LINKS = (" Then", " Next")
RESULTS = (" giving", " so")
CLOSINGS = (" Hence", " Total")


@dataclass(frozen=True, slots=True)
class Style:
    """How often the writer is careful: each a probability."""

    work_easy: float = 0.60  # work a step out where no carry or borrow is due
    work_hard: float = 0.45  # the same where one is due
    carry: float = 0.60  # write it, in a step that is worked out
    stop_early: float = 0.05  # forget the last term
    largest_error: int = 9  # a guess is off by up to this much


CAREFUL = Style(work_easy=1, work_hard=1, carry=1, stop_early=0)  # always right


def prompt(expression: str) -> str:
    """What the chat template renders for one user message that holds the question."""
    return f"Q: {question(expression)}\nA:"


def draw_pair(rng: random.Random, style: Style) -> tuple[str, str]:
    """A training expression and one worked answer to it."""
    expression = draw_training(rng, num_operations=rng.choice((2, 3)))
    return expression, write_answer(expression, rng, style)


def write_answer(expression: str, rng: random.Random, style: Style) -> str:
    value, *rest = terms(expression)
    if rng.random() < style.stop_early:
        rest = rest[:-1]
    text = ""
    for index, term in enumerate(rest):
        text += f"{rng.choice(LINKS if index else OPENINGS)} {value}{term:+d}"
        step, value = _write_step(value, term, rng, style)
        text += f"{step} {value}."
    return f"{text}{rng.choice(CLOSINGS)} \\boxed{{{value}}}."


def _write_step(value: int, term: int, rng: random.Random, style: Style) -> tuple[str, int]:
    """The text between `58+26` and the step's result, and that result, which may be wrong."""
    exact = value + term
    share = style.work_hard if is_carry_due(value, term) else style.work_easy
    if LOWEST <= exact <= HIGHEST and rng.random() < share:
        return _work_out(value, term, rng, style)
    guess = exact + rng.randint(-style.largest_error, style.largest_error)
    return " is about", min(max(guess, LOWEST), HIGHEST)


def is_carry_due(value: int, term: int) -> bool:
    """True where the ones digits overflow (a carry) or underflow (a borrow)."""
    ones = abs(term) % 10
    return value % 10 + ones > 9 if term > 0 else value % 10 < ones


def _work_out(value: int, term: int, rng: random.Random, style: Style) -> tuple[str, int]:
    sign, word = ("+", "carry") if term > 0 else ("-", "borrow")
    tens, ones = divmod(value, 10)
    term_tens, term_ones = divmod(abs(term), 10)
    is_due = is_carry_due(value, term)
    if is_due and term < 0:
        ones += 10
    ones_result = ones + term_ones if term > 0 else ones - term_ones
    tens_result = tens + term_tens if term > 0 else tens - term_tens
    text = f": ones {ones}{sign}{term_ones}={ones_result},"
    carried = ""
    if is_due and rng.random() < style.carry:
        text += f" {word} 1,"
        carried = f"{sign}1"
        tens_result += 1 if term > 0 else -1
    text += f" tens {tens}{sign}{term_tens}{carried}={tens_result},{rng.choice(RESULTS)}"
    return text, tens_result * 10 + ones_result % 10
