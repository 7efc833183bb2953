r"""Real traps: what a response says, and the verdict that a careful person would give.

The rules where careful people need one:
- A unit is left out, and not converted: `5 cm` is 5. Letters beside a variable are no unit.
- A per cent or degree sign that only one side has is a unit or its factor; beside a gold share only the factor.
- A decimal is exact, or agrees in six places: 0.333333 is 1/3, 0.333 is not, and 3.14 is not pi.
- A comma between groups of three separates thousands, unless brackets or a space behind it say that it lists.
- A list answers a list in any order, a tuple only in its own; a set is no tuple, an inequality is its interval.
- What says two different things, or one thing twice, is not one answer.
"""

from collections.abc import Iterator
from typing import NamedTuple, get_args

import pytest

from engine.problem import GraderName, Problem
from engine.record import Grade, Trajectory
from evaluators.grading.grader import Grader
from evaluators.grading.verdict import Verdict


class Trap(NamedTuple):
    grader: GraderName
    gold: str
    response: str
    verdict: Verdict
    answer: str | None = None  # as extracted; None: not looked at


def boxed(grader: GraderName, verdict: Verdict, *rows: tuple[str, str]) -> list[Trap]:
    """Rows of (gold, content of the response's box)."""
    return [Trap(grader, gold, rf"So $\boxed{{{answer}}}$.", verdict, answer.strip()) for gold, answer in rows]


EXTRACTION: list[Trap] = [
    # nested and several boxes
    Trap("math", r"\frac{1}{2}", r"\boxed{\frac{1}{2}}", "correct", r"\frac{1}{2}"),
    Trap("math", r"\sqrt{\frac{1}{2}}", r"$\boxed{\sqrt{\frac{1}{2}}}$", "correct", r"\sqrt{\frac{1}{2}}"),
    Trap("math", "5", r"\boxed{x = \boxed{5}}", "correct", "5"),
    Trap("math", "5", r"\boxed{\text{so it is } \boxed{5}}", "correct", "5"),
    Trap("math", "5", r"\boxed{4}, no: \boxed{5}", "correct", "5"),
    Trap("math", "4", r"\boxed{4}, no: \boxed{5}", "wrong", "5"),
    Trap("math", "5", r"First \boxed{5}. Check: \boxed{5}.", "correct", "5"),
    Trap("math", "5", r"\boxed{5} and \boxed{", "correct", "5"),
    Trap("math", r"\{1,2\}", r"\boxed{\{1,2\}}", "correct", r"\{1,2\}"),
    # empty and broken boxes
    Trap("math", "5", r"\boxed{}", "no_answer"),
    Trap("math", "5", r"\boxed{ }", "no_answer"),
    Trap("math", "5", r"\boxed{5} or rather \boxed{}", "correct", "5"),
    Trap("math", "5", r"\boxed{5", "no_answer"),
    Trap("math", "5", r"Answer: \boxed{}", "no_answer"),
    Trap("math", "5", "put your final answer within \\boxed{}.", "no_answer"),
    Trap("math", "0", r"\boxed{$ $}", "wrong", "$ $"),
    # thoughts
    Trap("math", "5", r"<think>\boxed{4}</think>\boxed{5}", "correct", "5"),
    Trap("math", "4", r"<think>\boxed{4}</think>I give up.", "no_answer"),
    Trap("math", "4", "<think>so it is 4</think>", "no_answer"),
    Trap("math", "5", r"<think>\boxed{4}</think> hm </think> \boxed{5}", "correct", "5"),
    Trap("math", "5", r"<think>so \boxed{5}, but wait", "correct", "5"),
    Trap("integer", "5", "<think>Answer: 4</think>\nAnswer: 5", "correct", "5"),
    # answer lines
    Trap("integer", "50", "It is 50.\nAnswer: 50", "correct", "50"),
    Trap("integer", "50", "**Answer:** 50", "correct", "50"),
    Trap("integer", "50", "**Answer: 50**", "correct", "50"),
    Trap("integer", "50", "### Final Answer: $50$.", "correct", "$50$"),
    Trap("integer", "50", "Answer: 49\nNo!\nAnswer: 50", "correct", "50"),
    Trap("integer", "49", "Answer: 49\nNo!\nAnswer: 50", "wrong", "50"),
    Trap("integer", "50", "Answer: 50\nAnswer:", "correct", "50"),
    Trap("integer", "50", "so it is 50. Answer: 50", "correct", "50"),
    Trap("integer", "50", "Answer: $\\boxed{50}$", "correct", "50"),
    Trap("integer", "50", "We must write Answer: followed by a number", "no_answer"),
    Trap("integer", "50", "\uff21nswer: 50 is what I would write, if I were sure of it", "no_answer"),
    # guesses
    Trap("math", "50", "The answer is 50.", "guessed"),
    Trap("math", "50", "so it is 49, or 50", "guessed"),
    Trap("math", "50", "= 50", "guessed"),
    Trap("math", "50", "I do not know", "no_answer"),
    Trap("math", "50", "and then we square it, so that", "no_answer"),
    Trap("math", "50", "", "no_answer"),
    Trap("choice", "B", "The answer is definitely (B).", "guessed"),
    Trap("choice", "C", "The answer is clearly D", "guessed"),
    Trap("choice", "C", "Consider", "no_answer"),
    Trap("choice", "D", "**D**", "guessed"),
    Trap("choice", "A", "A proton is emitted", "no_answer"),
    Trap("exact", "the Nile", "The answer is the Nile.", "guessed"),
]

INTEGER: list[Trap] = [
    *boxed("integer", "correct", ("73", "073"), ("073", "73"), ("0", "000"), ("0", "-0"), ("5", "+5"), ("73", "$73$")),
    *boxed("integer", "correct", ("73", "73."), ("73", r"\text{73}"), ("73", r"\mathbf{73}"), ("840", "\u0668\u0664\u0660")),
    *boxed("integer", "correct", ("73", "\uff17\uff13"), ("73", "7\u200b3"), ("73", "\u202a73\u202c"), ("73", "\U0001d7d5\U0001d7d1")),
    *boxed("integer", "correct", ("-5", "\u22125"), ("-5", "\uff0d5"), ("-5", "\u20135"), ("1000", "1,000"), ("1000", r"1{,}000")),
    *boxed("integer", "wrong", ("73", "37"), ("73", "73.0"), ("73", "73 apples"), ("73", "x = 73"), ("52", "5\u00b2")),
    *boxed("integer", "wrong", ("73", r"\frac{146}{2}"), ("73", "73!"), ("73", "72 or 73"), ("5", "-5"), ("73", "7 3")),
    *boxed("integer", "wrong", ("840", "840,840"), ("123", "1,23"), ("7", "seven"), ("73", "0x49"), ("5", "\u00bd")),
    Trap("integer", "5", rf"\boxed{{{'5' * 100_000}}}", "wrong"),
    Trap("integer", "5", rf"\boxed{{{'0' * 100_000}5}}", "correct"),
    Trap("integer", "5", "x " * 50_000 + r"\boxed{5}", "correct", "5"),
    Trap("integer", "5", rf"\boxed{{{'so ' * 30_000}}}", "wrong"),
]

NUMBERS: list[Trap] = [
    *boxed("math", "correct", ("5", "5.0"), ("5", "5."), ("5", "05"), ("5", "+5"), ("5", "(5)"), ("5", "{5}"), ("-5", "(-5)")),
    *boxed("math", "correct", ("1000", "1,000.00"), ("1000", "1 000"), ("1000", r"1\,000"), ("1234567", "1 234 567")),
    *boxed("math", "correct", ("840840", "840,840"), ("1000", "10^3"), ("1000", "1e3"), ("1500", r"1.5\times10^3")),
    *boxed("math", "correct", ("1.6e-19", r"1.6 \times 10^{-19}"), ("2500000", "2.5 million"), ("120", "5!"), ("10", r"\dbinom52")),
    *boxed("math", "wrong", ("840", "840,840"), ("840", "840, 840"), ("5", "5 or 6"), ("5", r"5 \text{ or } 5"), ("5", "5!")),
    *boxed("math", "wrong", ("5", r"\pm 5"), ("-5", "5"), ("5", "5x"), ("5", "5a"), ("3", "3d"), ("5", "5 million"), ("5", "1,5")),
    *boxed("math", "wrong", ("5", r"\neq 5"), ("5", "less than 5"), ("5", r"x \ge 5"), ("5", "not 5"), ("1", "1,000")),
    *boxed("math", "wrong", ("1e-9", "2e-9"), ("0.0001234", "0.000123"), (r"\frac{\pi}{10^8}", "0.00000003"), ("5", "five?")),
    # fractions and mixed numbers
    *boxed("math", "correct", (r"\frac{1}{2}", "1/2"), (r"\frac{1}{2}", "0.5"), (r"\frac{1}{2}", ".5"), (r"\frac12", r"\frac{2}{4}")),
    *boxed("math", "correct", (r"\frac{1}{2}", r"\dfrac{1}{2}"), (r"\frac{1}{2}", r"\tfrac12"), (r"\frac{1}{2}", "\u00bd")),
    *boxed("math", "correct", (r"-\frac{1}{2}", r"\frac{-1}{2}"), (r"-\frac{1}{2}", "-(1/2)"), (r"\frac{5}{2}", r"2\frac{1}{2}")),
    *boxed("math", "correct", (r"\frac{5}{2}", "2 1/2"), (r"\frac{5}{2}", "2\u00bd"), (r"-\frac{5}{2}", r"-2\frac12")),
    *boxed("math", "correct", (r"\frac13", r"0.\overline{3}"), (r"\frac13", "0.333..."), (r"\frac16", r"0.1\overline{6}")),
    *boxed("math", "correct", (r"\frac13", "0.333333"), (r"\frac13", r"\frac13 \approx 0.333"), (r"\frac12", "1:2")),
    *boxed("math", "wrong", (r"\frac13", "0.333"), (r"\frac13", "0.3"), (r"\frac12", r"\frac21"), ("1", r"2\frac12"), (r"\frac12", "1.2")),
    *boxed("math", "wrong", ("2:3", "3:2"), ("2:3:5", "2:5:3")),
    *boxed("math", "correct", ("2:3:5", "4:6:10")),
    # per cent, degrees, money, units
    *boxed("math", "correct", (r"50\%", "0.5"), (r"50\%", "50"), ("0.5", r"50\%"), (r"\frac12", "50%"), ("50", "50%")),
    *boxed("math", "correct", (r"12.5\%", "12.5"), ("12.5", r"12.5\%"), (r"33\frac13\%", r"\frac13"), ("50", r"50\text{ percent}")),
    *boxed("math", "wrong", ("0.5", "0.5%"), (r"50\%", "5"), (r"50\%", "0.5%"), (r"\frac12", r"\frac12\%")),
    *boxed("math", "correct", ("5", r"5^\circ"), ("90", "90\u00b0"), (r"60^\circ", "60"), (r"60^{\circ}", r"\frac{\pi}{3}")),
    *boxed("math", "correct", (r"\frac{\sqrt2}{2}", r"\sin 45^\circ"), ("5", r"\$5"), ("5", "5 dollars"), (r"\$5", "5.00")),
    *boxed("math", "correct", ("5", "5 apples"), ("5", r"5\text{ cm}"), ("5", r"5 \text{ cm}^2"), ("5", "5 m"), ("5", "5 km/h")),
    *boxed("math", "correct", ("9.8", r"9.8\,\mathrm{m/s^2}"), ("12", r"12 \text{ square units}"), (r"5 \text{ cm}", "5"), ("5", "5th")),
    *boxed("math", "wrong", ("2s", "2t"), ("2x+3m", "2x+3"), ("5", "6 apples"), (r"2 \text{ pm}", r"2 \text{ am}"), ("5", "5 or more")),
    # bases
    *boxed("math", "correct", ("101_2", "101_2"), ("101_2", "101"), ("5", "101_2"), (r"2F_{16}", "2f_{16}")),
    *boxed("math", "wrong", ("101_2", "101_3"), ("101_2", "5"), ("5", "110_2")),
    # as a program, or in Unicode
    *boxed("math", "correct", (r"2\sqrt2", "2*sqrt(2)"), (r"2\sqrt2", "2\u221a2"), (r"2\pi", "2pi"), (r"2\pi", "2\u03c0")),
    *boxed("math", "correct", (r"x^{10}", "x\u00b9\u2070"), (r"-\frac12", "\u2212\u00bd"), ("6", "2\u00d73"), (r"x \le 5", "x \u2264 5")),
    *boxed("math", "wrong", ("52", "5\u00b2"), ("2", "5\u20133")),
]  # fmt: skip

FORMULAS: list[Trap] = [
    # roots, pi, e
    *boxed("math", "correct", (r"\sqrt{2}", r"\sqrt2"), (r"2\sqrt{2}", r"\sqrt{8}"), (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt2}")),
    *boxed("math", "correct", (r"\sqrt2", "1.41421356"), (r"x^{1/2}", r"\sqrt x"), (r"\sqrt[3]{8}", "2"), (r"e^x", r"\exp(x)")),
    *boxed("math", "correct", (r"\log_2 8", "3"), (r"2\ln 2", r"\ln 4"), (r"\ln 2", r"\log_e 2"), (r"\tan x", r"\frac{\sin x}{\cos x}")),
    *boxed("math", "wrong", (r"\pi", "3.14"), (r"\pi", r"\frac{22}{7}"), (r"\sqrt2", "1.414"), ("e", "2.718"), (r"\sqrt2", "2")),
    # equations, letters, words in front
    *boxed("math", "correct", ("5", "x=5"), ("x=5", "5"), ("5", "x = 2+3 = 5"), ("5", "= 5"), ("5", r"\approx 5"), ("y=2x+1", "2x+1")),
    *boxed("math", "correct", ("y=2x+1", "2x-y+1=0"), ("5", r"\text{The answer is } 5"), ("5", "the answer is $5$"), ("5", "**5**")),
    *boxed("math", "correct", ("x^2+2x+1", "(x+1)^2"), ("ab", "ba"), (r"2^n-1", r"2^{n}-1"), (r"\frac{n(n+1)}{2}", r"\binom{n+1}{2}")),
    *boxed("math", "correct", (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"), (r"\frac12", r"\int_0^1 x\,dx"), ("5", r"\boldsymbol{5}")),
    *boxed("math", "wrong", ("x=5", "y=5"), ("x+1", "y+1"), (r"2^n-1", r"2^{n-1}"), ("2x+z=1", "1"), ("x^2+y^2=1", "x^2+y^2=4")),
    # complex numbers
    *boxed("math", "correct", ("2i", "(1+i)^2"), (r"\frac{1}{1+i}", r"\frac{1-i}{2}"), (r"e^{i\pi}", "-1"), ("5", "|3+4i|")),
    *boxed("math", "wrong", ("1+2i", "1-2i"), ("i", "-i"), ("a_i", "a_j")),
    # sets, lists, tuples
    *boxed("math", "correct", ("1,2", r"\{1,2\}"), (r"\{1,2\}", "2, 1"), ("1,2", "1 and 2"), ("1,2", r"x=1 \text{ or } x=2")),
    *boxed("math", "correct", (r"\pm 5", "5, -5"), ("(1,2)", "(1, 2)"), ("(1,2)", "1,2"), ("(1,2),(3,4)", "(3,4),(1,2)")),
    *boxed("math", "correct", (r"\{1,2,3\}", r"\{3,2,2,1\}"), ("1, 234", "1,234"), ("(100,200)", "(100, 200)"), ("x=1,y=2", "y=2, x=1")),
    *boxed("math", "wrong", ("1,2", "1"), ("1", "1,2"), ("1,2", "1,2,3"), ("(1,2)", "(2,1)"), ("(1,2)", r"\{1,2\}"), (r"\{1,2\}", "(1,2)")),
    *boxed("math", "wrong", (r"\{1,2\}", "[1,2]"), ("(1,2,3)", "(3,2,1)"), ("(3,1,2)", r"\{1,2,3\}"), ("x=1,y=2", "x=2,y=1")),
    # intervals
    *boxed("math", "correct", ("[0,1)", "[0, 1)"), ("[0,1)", r"0 \le x < 1"), ("0<x<1", "(0,1)"), ("[0,1)", r"x \in [0,1)")),
    *boxed("math", "correct", ("-1<x<2", "2>x>-1"), (r"(-\infty,1)\cup(2,\infty)", r"x<1 \text{ or } x>2"), ("x<1", "1>x")),
    *boxed("math", "correct", (r"(-\infty,1)\cup(2,\infty)", r"(2,+\infty) \cup (-\infty,1)"), (r"[2,5]", r"\left[2,5\right]")),
    *boxed("math", "wrong", ("[0,1)", "[0,1]"), ("(0,1)", "[0,1]"), ("x<1", r"x \le 1"), ("x>1", "x<1"), ("[0,1)", "0<x<1")),
    # matrices
    *boxed(
        "math", "correct",
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"),
        (r"\begin{pmatrix}1/2\\2\end{pmatrix}", r"\begin{pmatrix}0.5\\2\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
        ("-2", r"\begin{vmatrix}1&2\\3&4\end{vmatrix}"),
    ),
    *boxed(
        "math", "wrong",
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    ),
    # no number
    *boxed("math", "correct", (r"\infty", "infinity"), (r"\infty", "+\u221e"), (r"\text{no solution}", "No solutions."), (r"\emptyset", r"\{\}")),
    *boxed("math", "correct", (r"\emptyset", r"\text{no solution}"), (r"\text{Evelyn}", "Evelyn"), (r"\text{Yes}", "yes"), (r"\text{(B)}", "B")),
    *boxed("math", "wrong", (r"\infty", r"-\infty"), (r"\infty", "5"), (r"\text{no solution}", "0"), (r"\text{east}", r"\text{west}")),
    *boxed("math", "wrong", (r"\text{even}", r"\text{odd}"), ("5", "I do not know"), ("5", r"\frac"), ("5", r"\text{none}"), (r"\emptyset", "0")),
    Trap("math", r"\frac12", rf"\boxed{{{'x+' * 50_000}1}}", "ungradable"),
    Trap("math", "5", rf"\boxed{{{'9' * 100_000}}}", "wrong"),
    Trap("math", "5", rf"\boxed{{{' ' * 50_000}5{' ' * 50_000}}}", "correct", "5"),
]  # fmt: skip

CHOICE: list[Trap] = [
    *boxed("choice", "correct", ("B", "B"), ("B", "(B)"), ("B", "B."), ("B", "B)"), ("B", "$B$"), ("B", "b"), ("B", "**B**")),
    *boxed("choice", "correct", ("B", r"\text{B}"), ("B", r"\textbf{(B)}"), ("B", r"\mathrm{B}"), ("B", r"\textbf{(B)}\ 10")),
    *boxed("choice", "correct", ("B", "Option B"), ("B", "option (B)"), ("B", "B) 10 m/s"), ("B", "B: a proton"), ("B", "B. ${10}$")),
    *boxed("choice", "correct", ("B", "the answer is B"), ("B", "B is correct"), ("B", "B because A is too small"), ("A", "A")),
    *boxed("choice", "correct", ("A", "A) proton"), ("D", "D) A proton"), ("A", "a"), ("B", "\uff22"), ("B", "\u24b7"), ("B", "B, 10 m/s")),
    *boxed("choice", "wrong", ("B", "C"), ("B", "A or B"), ("A", "A or B"), ("B", "A, B"), ("A", "A and C"), ("A", "(A) and (C)")),
    *boxed("choice", "wrong", ("A", "A/B"), ("A", "A proton"), ("A", "a proton"), ("B", "10 m/s"), ("B", "E"), ("B", "Z"), ("B", "not B")),
    *boxed("choice", "wrong", ("N", "None of these"), ("A", "A) 5, B) 6"), ("B", "both B and C"), ("C", "Clearly"), ("D", "DNA"), ("B", "2")),
    Trap("choice", "B", "Answer: B", "correct", "B"),
    Trap("choice", "B", "**Answer:** (B) because it is", "correct", "(B) because it is"),
    Trap("choice", "B", "I was asked for 'Answer: $LETTER'.\nAnswer: $B$", "correct", "$B$"),
    Trap("choice", "B", "Answer: A\n\nAnswer: B", "correct", "B"),
    Trap("choice", "A", "Answer: A\n\nAnswer: B", "wrong", "B"),
    Trap("choice", "B", f"Answer: B) {'long ' * 20_000}", "correct"),
]

EXACT: list[Trap] = [
    *boxed("exact", "correct", ("the Nile", "The  Nile"), ("Nile", r"\text{Nile}"), ("Nile", "$Nile$"), ("Nile", '"Nile"'), ("Nile", "Nile.")),
    *boxed("exact", "correct", ("A B", "\uff21\u3000\uff22"), ("x+1", "$x+1$"), ("-5", "\u22125")),
    *boxed("exact", "wrong", ("Nile", "the Nile"), ("x+1", "1+x"), ("0.5", "1/2"), ("Nile", "Nil")),
    Trap("exact", "Nile", "Answer: nile", "correct", "nile"),
]  # fmt: skip

TRAPS = [*EXTRACTION, *INTEGER, *NUMBERS, *FORMULAS, *CHOICE, *EXACT]


class Shortfall(NamedTuple):
    """Where the verdict is not what a careful person would give, and why it stays so."""

    gold: str
    answer: str
    verdict: Verdict
    careful: Verdict
    reason: str


SHORTFALLS = [
    Shortfall(r"5 \text{ cm}", r"5 \text{ m}", "correct", "wrong", "units are left out"),
    Shortfall(r"5 \text{ m}", r"500 \text{ cm}", "wrong", "correct", "units are not converted"),
    Shortfall("N", "n", "correct", "wrong", "math-verify lowers every letter"),
    Shortfall("5", "five", "wrong", "correct", "numbers in words are not read"),
    Shortfall("0.5", "0,5", "wrong", "correct", "a decimal comma looks like a list"),
    Shortfall(r"\text{June 20}", "20 June", "wrong", "correct", "dates are not read"),
]


def grade(traps: list[Trap]) -> Iterator[Grade]:
    """One grade a trap, in their order; a problem a trap."""
    for name in get_args(GraderName):
        chosen = [(place, trap) for place, trap in enumerate(traps) if trap.grader == name]
        problems = [Problem(str(place), "", trap.gold) for place, trap in chosen]
        with Grader(problems, name, workers=2, deadline_s=60.0) as grader:
            for place, trap in chosen:
                grader.submit(Trajectory(str(place), 0, "forward", 0), trap.response)
            yield from grader.finish()


@pytest.fixture(scope="module")
def grades() -> dict[int, Grade]:
    return {int(grade.key.problem): grade for grade in grade(TRAPS)}


@pytest.mark.parametrize("place", range(len(TRAPS)), ids=lambda place: f"{TRAPS[place].grader}-{place}")
def test_a_trap_gets_the_verdict_of_a_careful_person(place: int, grades: dict[int, Grade]) -> None:
    trap, got = TRAPS[place], grades[place]
    assert got.verdict == trap.verdict, f"{trap.gold!r} and {trap.response[:80]!r}"
    assert trap.answer in (None, got.answer)


def test_known_shortfalls_are_these_and_no_others() -> None:
    traps = [Trap("math", row.gold, rf"\boxed{{{row.answer}}}", row.verdict) for row in SHORTFALLS]
    got = {int(grade.key.problem): grade.verdict for grade in grade(traps)}
    assert [got[place] for place in range(len(SHORTFALLS))] == [row.verdict for row in SHORTFALLS]
    assert all(row.verdict != row.careful for row in SHORTFALLS)


def test_every_gold_answer_of_the_traps_is_equal_to_itself() -> None:
    golds = sorted({(trap.grader, trap.gold) for trap in TRAPS})
    traps = [Trap(grader, gold, rf"\boxed{{{gold}}}", "correct") for grader, gold in golds]
    assert [traps[int(grade.key.problem)] for grade in grade(traps) if grade.verdict != "correct"] == []
