r"""Real traps: what a response says, and the verdict that a careful person would give.

The rules where careful people need one:
- A unit is left out, and not converted: `5 cm` is 5. Letters beside a variable are no unit.
- A per cent or degree sign that only one side has is a unit or its factor; beside a
  gold share only the factor.
- A decimal is exact, or agrees in six places: 0.333333 is 1/3, 0.333 is not, and 3.14 is not pi.
- A comma between groups of three separates thousands, unless brackets or a space
  behind it say that it lists.
- A list answers a list in any order, a tuple only in its own; a set is no tuple, an
  inequality is its interval.
- A time of day is no ratio, and half past nine in the morning not that in the evening.
- What says two different things, or one thing twice, is not one answer.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, get_args

import pytest

from engine.core import Grade, GraderName, Problem, Trajectory
from evaluators.grading.grader import Grader
from evaluators.grading.verdict import Verdict


class Trap(NamedTuple):
    grader: GraderName
    gold: str
    response: str
    verdict: Verdict
    answer: str | None = None  # as extracted; None: not looked at


def given(
    grader: GraderName, gold: str, right: Sequence[str] = (), wrong: Sequence[str] = ()
) -> list[Trap]:
    """Responses whose box holds these right and wrong answers."""
    verdicts: dict[Verdict, Sequence[str]] = {"correct": right, "wrong": wrong}
    return [
        Trap(grader, gold, rf"So $\boxed{{{answer}}}$.", verdict, answer)
        for verdict, answers in verdicts.items()
        for answer in answers
    ]


EXTRACTION: list[Trap] = [
    # nested and several boxes
    Trap("math", r"\frac{1}{2}", r"\boxed{\frac{1}{2}}", "correct", r"\frac{1}{2}"),
    Trap(
        "math",
        r"\sqrt{\frac{1}{2}}",
        r"$\boxed{\sqrt{\frac{1}{2}}}$",
        "correct",
        r"\sqrt{\frac{1}{2}}",
    ),
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
    Trap("math", "0", r"\boxed{$ $}", "no_answer"),
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
    Trap(
        "integer", "50", "\uff21nswer: 50 is what I would write, if I were sure of it", "no_answer"
    ),
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
    *given(
        "integer",
        "73",
        right=[
            "073",
            "+73",
            "$73$",
            "73.",
            r"\text{73}",
            r"\mathbf{73}",
            "\uff17\uff13",
            "7\u200b3",
            "\u202a73\u202c",
            "\U0001d7d5\U0001d7d1",
        ],
        wrong=[
            "37",
            "-73",
            "73.0",
            "73 apples",
            "x = 73",
            r"\frac{146}{2}",
            "73!",
            "72 or 73",
            "7 3",
            "0x49",
        ],
    ),
    *given("integer", "073", right=["73"]),
    *given("integer", "0", right=["000", "-0"], wrong=["O"]),
    *given("integer", "840", right=["\u0668\u0664\u0660"], wrong=["840,840"]),
    *given("integer", "-5", right=["\u22125", "\uff0d5", "\u20135"], wrong=["5"]),
    *given("integer", "1000", right=["1,000", "1{,}000"], wrong=["1000,000"]),
    *given("integer", "52", wrong=["5\u00b2"]),
    *given("integer", "123", wrong=["1,23"]),
    *given("integer", "7", wrong=["seven"]),
    Trap("integer", "5", rf"\boxed{{{'5' * 100_000}}}", "wrong"),
    Trap("integer", "5", rf"\boxed{{{'0' * 100_000}5}}", "correct"),
    Trap("integer", "5", "x " * 50_000 + r"\boxed{5}", "correct", "5"),
    Trap("integer", "5", rf"\boxed{{{'so ' * 30_000}}}", "wrong"),
]

NUMBERS: list[Trap] = [
    *given(
        "math",
        "5",
        right=["5.0", "5.", "05", "+5", "(5)", "{5}"],
        wrong=[
            "5 or 6",
            r"5 \text{ or } 5",
            "5!",
            r"\pm 5",
            "5x",
            "5a",
            "5 million",
            "1,5",
            r"\neq 5",
            "less than 5",
            r"x \ge 5",
            "not 5",
            "five?",
        ],
    ),
    *given("math", "-5", right=["(-5)"], wrong=["5"]),
    *given("math", "1000", right=["1,000.00", "1 000", r"1\,000", "10^3", "1e3"]),
    *given("math", "1234567", right=["1 234 567"]),
    *given("math", "840840", right=["840,840"]),
    *given("math", "1500", right=[r"1.5\times10^3"]),
    *given("math", "1.6e-19", right=[r"1.6 \times 10^{-19}"]),
    *given("math", "2500000", right=["2.5 million"]),
    *given("math", "120", right=["5!"]),
    *given("math", "10", right=[r"\dbinom52"]),
    *given("math", "840", wrong=["840,840", "840, 840"]),
    *given("math", "3", wrong=["3d"]),
    *given("math", "1", wrong=["1,000"]),
    *given("math", "1e-9", wrong=["2e-9"]),
    *given("math", "0.0001234", wrong=["0.000123"]),
    *given("math", r"\frac{\pi}{10^8}", wrong=["0.00000003"]),
    # fractions and mixed numbers
    *given(
        "math", r"\frac{1}{2}", right=["1/2", "0.5", ".5", r"\dfrac{1}{2}", r"\tfrac12", "\xbd"]
    ),
    *given("math", r"\frac12", right=[r"\frac{2}{4}", "1:2"], wrong=[r"\frac21", "1.2"]),
    *given("math", r"-\frac{1}{2}", right=[r"\frac{-1}{2}", "-(1/2)"]),
    *given("math", r"\frac{5}{2}", right=[r"2\frac{1}{2}", "2 1/2", "2\xbd"]),
    *given("math", r"-\frac{5}{2}", right=[r"-2\frac12"]),
    *given(
        "math",
        r"\frac13",
        right=[r"0.\overline{3}", "0.333...", "0.(3)", "0.333333", r"\frac13 \approx 0.333"],
        wrong=["0.333", "0.3"],
    ),
    *given("math", r"0.\overline{3}", right=["1/3"], wrong=["x", "0.3"]),
    *given("math", r"\frac16", right=[r"0.1\overline{6}"]),
    *given("math", "1", wrong=[r"2\frac12"]),
    *given("math", "2:3", wrong=["3:2"]),
    *given("math", "2:3:5", right=["4:6:10"], wrong=["2:5:3"]),
    # per cent, degrees, money, units
    *given("math", r"50\%", right=["0.5", "50"], wrong=["5", "0.5%"]),
    *given("math", "0.5", right=[r"50\%"], wrong=["0.5%"]),
    *given("math", r"\frac12", right=["50%"], wrong=[r"\frac12\%"]),
    *given("math", "50", right=["50%", r"50\text{ percent}"]),
    *given("math", r"12.5\%", right=["12.5"]),
    *given("math", "12.5", right=[r"12.5\%"]),
    *given("math", r"33\frac13\%", right=[r"\frac13"]),
    *given(
        "math",
        "5",
        right=[
            r"5^\circ",
            r"\$5",
            "5 dollars",
            "5 apples",
            r"5\text{ cm}",
            r"5 \text{ cm}^2",
            "5 m",
            "5 km/h",
            "5th",
        ],
        wrong=["6 apples", "5 or more"],
    ),
    *given("math", "90", right=["90\xb0"]),
    *given("math", r"60^\circ", right=["60"]),
    *given("math", r"60^{\circ}", right=[r"\frac{\pi}{3}"]),
    *given("math", r"\frac{\sqrt2}{2}", right=[r"\sin 45^\circ"]),
    *given("math", r"\$5", right=["5.00"]),
    *given("math", "9.8", right=[r"9.8\,\mathrm{m/s^2}"]),
    *given("math", "12", right=[r"12 \text{ square units}"]),
    *given("math", r"5 \text{ cm}", right=["5"]),
    *given("math", "2s", wrong=["2t"]),
    *given("math", "2x+3m", wrong=["2x+3"]),
    *given("math", r"2 \text{ pm}", wrong=[r"2 \text{ am}"]),
    # bases
    *given("math", "101_2", right=["101_2", "101"], wrong=["101_3", "5"]),
    *given("math", "5", right=["101_2"], wrong=["110_2"]),
    *given("math", "2F_{16}", right=["2f_{16}"]),
    # as a program, or in Unicode
    *given("math", r"2\sqrt2", right=["2*sqrt(2)", "2\u221a2"]),
    *given("math", r"2\pi", right=["2pi", "2\u03c0"]),
    *given("math", "x^{10}", right=["x\xb9\u2070"]),
    *given("math", r"-\frac12", right=["\u2212\xbd"]),
    *given("math", "6", right=["2\xd73"]),
    *given("math", r"x \le 5", right=["x \u2264 5"]),
    *given("math", "52", wrong=["5\xb2"]),
    *given("math", "2", wrong=["5\u20133"]),
]

FORMULAS: list[Trap] = [
    # roots, pi, e
    *given("math", r"\sqrt{2}", right=[r"\sqrt2"]),
    *given("math", r"2\sqrt{2}", right=[r"\sqrt{8}"]),
    *given("math", r"\frac{\sqrt2}{2}", right=[r"\frac{1}{\sqrt2}"]),
    *given("math", r"\sqrt2", right=["1.41421356"], wrong=["1.414", "2"]),
    *given("math", "x^{1/2}", right=[r"\sqrt x"]),
    *given("math", r"\sqrt[3]{8}", right=["2"]),
    *given("math", "e^x", right=[r"\exp(x)"]),
    *given(
        "math",
        r"\{\cos\frac{\pi}{5}, 1, -\sqrt2\}",
        [r"\{-\frac{2}{\sqrt2}, \frac{1+\sqrt5}{4}, 1\}"],
    ),
    *given("math", r"\frac{v^2}{2am}", [r"\frac{v^2}{2ma}"], [r"\frac{v^2}{2pm}"]),
    *given("math", r"\log_2 8", right=["3"]),
    *given("math", r"2\ln 2", right=[r"\ln 4"]),
    *given("math", r"\ln 2", right=[r"\log_e 2"]),
    *given("math", r"\tan x", right=[r"\frac{\sin x}{\cos x}"]),
    *given("math", r"\pi", wrong=["3.14", r"\frac{22}{7}"]),
    *given("math", "e", wrong=["2.718"]),
    # equations, letters, words in front
    *given(
        "math",
        "5",
        right=[
            "x=5",
            "x = 2+3 = 5",
            "= 5",
            r"\approx 5",
            r"\text{The answer is } 5",
            "the answer is $5$",
            "**5**",
            r"\boldsymbol{5}",
        ],
    ),
    *given("math", "x=5", right=["5"], wrong=["y=5"]),
    *given("math", "y=2x+1", right=["2x+1", "2x-y+1=0"]),
    *given("math", "x^2+2x+1", right=["(x+1)^2"]),
    *given("math", "ab", right=["ba", "a b", r"a \cdot b"], wrong=["a+b"]),
    *given("math", "x", right=[r"\frac{2x}{2}", "x+1-1"], wrong=["2x", "|x|", "y", "x^2"]),
    *given("math", r"\frac{x^2}{x}", right=["x"]),
    *given("math", "2^n-1", right=["2^{n}-1"], wrong=["2^{n-1}"]),
    *given("math", r"\frac{n(n+1)}{2}", right=[r"\binom{n+1}{2}"]),
    *given("math", r"\sum_{k=1}^{n} k", right=[r"\frac{n(n+1)}{2}"]),
    *given("math", r"\frac12", right=[r"\int_0^1 x\,dx"]),
    *given("math", "x+1", wrong=["y+1"]),
    *given("math", "2x+z=1", wrong=["1"]),
    *given("math", "x^2+y^2=1", wrong=["x^2+y^2=4"]),
    # complex numbers
    *given("math", "2i", right=["(1+i)^2"]),
    *given("math", r"\frac{1}{1+i}", right=[r"\frac{1-i}{2}"]),
    *given("math", r"e^{i\pi}", right=["-1"]),
    *given("math", "5", right=["|3+4i|"]),
    *given("math", "1+2i", wrong=["1-2i"]),
    *given("math", "i", wrong=["-i"]),
    *given("math", "a_i", wrong=["a_j"]),
    # sets, lists, tuples
    *given(
        "math", "1,2", right=[r"\{1,2\}", "1 and 2", r"x=1 \text{ or } x=2"], wrong=["1", "1,2,3"]
    ),
    *given("math", r"\{1,2\}", right=["2, 1"], wrong=["(1,2)", "[1,2]"]),
    *given("math", r"\pm 5", right=["5, -5"]),
    *given("math", "(1,2)", right=["(1, 2)", "1,2"], wrong=["(2,1)", r"\{1,2\}"]),
    *given(
        "math",
        "(1,2),(3,4)",
        right=["(3,4),(1,2)", r"\{(1,2),(3,4)\}"],
        wrong=["(2,1),(3,4)", "(1,2)"],
    ),
    *given("math", r"\{(1,2,3)\}", right=["(1,2,3)"]),
    *given("math", r"\{1,2,3\}", right=[r"\{3,2,2,1\}"]),
    *given("math", "1, 234", right=["1,234"]),
    *given("math", "100, 200, 300", right=["100,200,300"]),
    *given("math", "(100,200)", right=["(100, 200)"]),
    *given("math", "x=1,y=2", right=["y=2, x=1"], wrong=["x=2,y=1"]),
    *given("math", "1", wrong=["1,2"]),
    *given("math", "(1,2,3)", wrong=["(3,2,1)"]),
    *given("math", "(3,1,2)", wrong=[r"\{1,2,3\}"]),
    # intervals
    *given(
        "math", "[0,1)", right=["[0, 1)", r"0 \le x < 1", r"x \in [0,1)"], wrong=["[0,1]", "0<x<1"]
    ),
    *given("math", "0<x<1", right=["(0,1)"]),
    *given("math", "-1<x<2", right=["2>x>-1"]),
    *given(
        "math",
        r"(-\infty,1)\cup(2,\infty)",
        right=[r"x<1 \text{ or } x>2", r"(2,+\infty) \cup (-\infty,1)"],
    ),
    *given("math", "x<1", right=["1>x"], wrong=[r"x \le 1"]),
    *given("math", "[2,5]", right=[r"\left[2,5\right]"]),
    *given("math", "(0,1)", wrong=["[0,1]"]),
    *given("math", "x>1", wrong=["x<1"]),
    # matrices
    *given(
        "math",
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
        right=[r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}"],
        wrong=[r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"],
    ),
    *given(
        "math", r"\begin{pmatrix}1/2\\2\end{pmatrix}", right=[r"\begin{pmatrix}0.5\\2\end{pmatrix}"]
    ),
    *given(
        "math",
        r"\begin{pmatrix}1\\2\end{pmatrix}",
        right=["(1,2)"],
        wrong=[r"\begin{pmatrix}1&2\end{pmatrix}"],
    ),
    *given("math", "-2", right=[r"\begin{vmatrix}1&2\\3&4\end{vmatrix}"]),
    # no number
    *given("math", r"\infty", right=["infinity", "+\u221e"], wrong=[r"-\infty", "5"]),
    *given("math", r"\text{no solution}", right=["No solutions."], wrong=["0"]),
    *given("math", r"\emptyset", right=[r"\{\}", r"\text{no solution}"], wrong=["0"]),
    *given("math", r"\text{Evelyn}", right=["Evelyn"]),
    *given("math", r"\text{Yes}", right=["yes"]),
    *given("math", r"\text{(B)}", right=["B"]),
    *given("math", r"\text{east}", wrong=[r"\text{west}"]),
    *given("math", r"\text{even}", wrong=[r"\text{odd}"]),
    *given("math", "5", wrong=["I do not know", r"\frac", r"\text{none}"]),
    Trap("math", r"\frac12", rf"\boxed{{{'x+' * 50_000}1}}", "ungradable"),
    Trap("math", "5", rf"\boxed{{{'9' * 100_000}}}", "wrong"),
    Trap("math", "5", rf"\boxed{{{' ' * 50_000}5{' ' * 50_000}}}", "correct", "5"),
]

CHOICE: list[Trap] = [
    *given(
        "choice",
        "B",
        right=[
            "B",
            "(B)",
            "B.",
            "B)",
            "$B$",
            "b",
            "**B**",
            r"\text{B}",
            r"\textbf{(B)}",
            r"\mathrm{B}",
            "B 10",
            r"\textbf{(B)}\ 10",
            "Option B",
            "option (B)",
            "B) 10 m/s",
            "B: a proton",
            "B. ${10}$",
            "the answer is B",
            "B is correct",
            "B because A is too small",
            "\uff22",
            "\u24b7",
            "B, 10 m/s",
        ],
        wrong=["C", "A or B", "A, B", "10 m/s", "E", "Z", "not B", "both B and C", "2"],
    ),
    *given(
        "choice",
        "A",
        right=["A", "a", "A) proton", "(A) a proton"],
        wrong=["A or B", "A and C", "(A) and (C)", "A/B", "A proton", "a proton", "A) 5, B) 6"],
    ),
    *given("choice", "C", right=["C"], wrong=["Clearly", "Consider"]),
    *given("choice", "D", right=["D) A proton"], wrong=["DNA"]),
    *given("choice", "N", wrong=["None of these"]),
    Trap("choice", "B", "Answer: B", "correct", "B"),
    Trap("choice", "B", "**Answer:** (B) because it is", "correct", "(B) because it is"),
    Trap("choice", "B", "I was asked for 'Answer: $LETTER'.\nAnswer: $B$", "correct", "$B$"),
    Trap("choice", "B", "Answer: A\n\nAnswer: B", "correct", "B"),
    Trap("choice", "A", "Answer: A\n\nAnswer: B", "wrong", "B"),
    Trap("choice", "B", f"Answer: B) {'long ' * 20_000}", "correct"),
]

EXACT: list[Trap] = [
    *given(
        "exact",
        "Nile",
        right=[r"\text{Nile}", "$Nile$", '"Nile"', "Nile.", "NILE"],
        wrong=["the Nile", "Nil"],
    ),
    *given("exact", "the Nile", right=["The  Nile"]),
    *given("exact", "A B", right=["\uff21\u3000\uff22"]),
    *given("exact", "x+1", right=["$x+1$"], wrong=["1+x"]),
    *given("exact", "-5", right=["\u22125"]),
    *given("exact", "0.5", wrong=["1/2"]),
    Trap("exact", "Nile", "Answer: nile", "correct", "nile"),
]

NEAR_MISSES: list[Trap] = [
    # letters that are no unit, powers of i, numbers that agree in fifteen places, equations without
    # a solution, both signs in one fraction, words that change a number, times of day, marks that a
    # parser passes over
    *given("math", r"\frac12 bh", [r"\frac{bh}{2}"]),
    *given("math", "2ab", ["2a b"], ["2", "2cd"]),
    *given("math", "3+4i", [r"3+4\mathrm{i}"]),
    *given("math", r"2\pi i", [r"2\pi\mathrm{i}"]),
    *given("math", r"\frac{1}{\mathrm{e}}", ["1/e"]),
    *given("math", "-1", ["i^2"]),
    *given("math", "-i", ["i^3"], ["-i^2"]),
    *given("math", r"\frac{-1+\sqrt5}{2},\frac{-1-\sqrt5}{2}", [r"\frac{-1\pm\sqrt5}{2}"]),
    *given("math", r"\frac{3\pm\sqrt{17}}{4}", [r"\frac{3\pm\sqrt{17}}{4}"]),
    *given(
        "math",
        "15",
        [
            r"15\text{ min}",
            "15 sec",
            r"15\text{ times}",
            r"15\text{ units squared}",
            "15 cm cubed",
            r"15\,\textup{cm}",
            "15 sq. cm",
            "15 apples",
            "15cm",
            r"15\text{ cm}^2",
            "15 m/s",
        ],
    ),
    *given("math", r"3\text{ PM}", ["3 PM", r"3\text{ p.m.}"]),
    *given("math", "4:00", ["4:00"]),
    *given("math", r"10:00\text{ a.m.}", [r"10:00\text{ a.m.}"]),
    *given("math", r"(-\infty,3]", [r"\{x \mid x\le 3\}"]),
    *given("math", "(3,-4)", [r"\langle 3,-4\rangle"]),
    *given("math", r"\cos\frac\pi5", [r"\frac{1+\sqrt5}{4}"]),
    *given(
        "math",
        r"\{\cos\frac{\pi}{5}, 1, -\sqrt2\}",
        [r"\{-\frac{2}{\sqrt2}, \frac{1+\sqrt5}{4}, 1\}"],
    ),
    *given("math", r"\log_2 8", ["3"]),
    *given("math", "x^2-2x+5=0", ["2x^2-4x+10=0"], ["x^2+7=0", "x^2-4x+5=0"]),
    *given("math", "3:10", ["6:20"]),
    *given(
        "math",
        "5",
        ["5th"],
        [
            r"5\text{ tenths}",
            "5 hundredths",
            r"5\text{ thousands}",
            "5 millions",
            "5 below zero",
            "5 fewer",
            "5...",
            r"5\ldots",
        ],
    ),
    *given(
        "math", r"1-\frac{1}{2^{100}}", [r"\frac{2^{100}-1}{2^{100}}"], [r"1+\frac{1}{2^{100}}"]
    ),
    *given("math", "12", [], ["12ab", "12xy", "12kx", "12pq"]),
    *given("math", "24xyz", [], ["24"]),
    *given("math", r"\frac{1}{2}ab", [], [r"\frac{1}{2}bh"]),
    *given("math", r"2\pi rh", [], [r"2\pi", r"2\pi rl"]),
    *given("math", r"\pi", [], [r"\pi ab"]),
    *given(
        "math",
        "2",
        [],
        ["2AB", "2 dx", r"2\mathrm{e}^{2}", r"2\text{x}", r"2\mathbf{5}", "2 zeta", "2 arctan"],
    ),
    *given("math", r"\angle ABC", [], [r"\angle DEF"]),
    *given("math", r"\triangle ABC", [], [r"\triangle ABD"]),
    *given("math", "3", [], [r"3\text{2}"]),
    *given("math", r"2\pi", [], [r"2\pi\mathrm{i}"]),
    *given("math", "i", [], ["i^{2022}"]),
    *given("math", "2i", [], ["2i^3"]),
    *given("math", "1+i", [], ["1+i^4"]),
    *given("math", r"\frac{1}{2^{2021}}", [], [r"\frac{1}{2^{2022}}"]),
    *given("math", r"1-\left(\frac56\right)^{200}", [], [r"1-\left(\frac56\right)^{199}"]),
    *given("math", r"\frac{1}{2023!}", [], [r"\frac{2}{2023!}"]),
    *given("math", "(2^{-100},1)", [], ["(2^{-101},1)"]),
    *given("math", "x^2+1=0", [], ["y^2+1=0"]),
    *given("math", r"6\text{ p.m.}", [], [r"6\text{ a.m.}"]),
    *given("math", "10:30", [], ["1:3"]),
    *given("math", "9:15", [], ["3:5"]),
    *given("math", "f'(x)", [], ["f(x)"]),
    *given("math", "A^T", [], ["A"]),
    *given("math", "ABC", [], ["CBA"]),
    *given(
        "choice",
        "B",
        [
            "B (the proton)",
            "B (five metres)",
            "B = 5",
            "B -- five",
            "B!",
            r"\underline{B}",
            "B 10 m/s",
        ],
        ["B. No wait, C"],
    ),
    *given("choice", "A", [], ["A 10-fold increase", "a 5 m rod", "A - B", "A: wrong, B: right"]),
]

TRAPS = [*EXTRACTION, *INTEGER, *NUMBERS, *FORMULAS, *CHOICE, *EXACT, *NEAR_MISSES]


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
]


def grade(traps: list[Trap]) -> Iterator[Grade]:
    """One grade a trap, in their order; a problem a trap."""
    for name in get_args(GraderName):
        chosen = [(place, trap) for place, trap in enumerate(traps) if trap.grader == name]
        problems = [Problem(str(place), "", trap.gold) for place, trap in chosen]
        with Grader(problems, name, workers=2, deadline_s=300.0) as grader:
            for place, trap in chosen:
                grader.submit(Trajectory(str(place), 0, "forward", 0), trap.response)
            yield from grader.finish()


@pytest.fixture(scope="module")
def grades() -> dict[int, Grade]:
    return {int(grade.key.problem): grade for grade in grade(TRAPS)}


@pytest.mark.parametrize(
    "place", range(len(TRAPS)), ids=lambda place: f"{TRAPS[place].grader}-{place}"
)
def test_a_trap_gets_the_verdict_of_a_careful_person(place: int, grades: dict[int, Grade]) -> None:
    trap, got = TRAPS[place], grades[place]
    assert got.verdict == trap.verdict, f"{trap.gold!r} and {trap.response[:80]!r}"
    assert trap.answer in (None, got.answer)


def test_the_order_of_the_responses_and_the_number_of_workers_change_no_grade(
    grades: dict[int, Grade],
) -> None:
    places = [place for place, trap in enumerate(TRAPS) if trap.grader == "math"]
    problems = [Problem(str(place), "", TRAPS[place].gold) for place in places]
    with Grader(problems, workers=1, deadline_s=300.0) as grader:
        for place in reversed(places):
            grader.submit(Trajectory(str(place), 0, "forward", 0), TRAPS[place].response)
        assert {int(grade.key.problem): grade for grade in grader.finish()} == {
            place: grades[place] for place in places
        }


def test_known_shortfalls_are_these_and_no_others() -> None:
    traps = [Trap("math", row.gold, rf"\boxed{{{row.answer}}}", row.verdict) for row in SHORTFALLS]
    got = {int(grade.key.problem): grade.verdict for grade in grade(traps)}
    assert [got[place] for place in range(len(SHORTFALLS))] == [row.verdict for row in SHORTFALLS]
    assert all(row.verdict != row.careful for row in SHORTFALLS)


def test_every_gold_answer_of_the_traps_is_equal_to_itself() -> None:
    golds = sorted({(trap.grader, trap.gold) for trap in TRAPS})
    traps = [Trap(grader, gold, rf"\boxed{{{gold}}}", "correct") for grader, gold in golds]
    assert [
        traps[int(grade.key.problem)] for grade in grade(traps) if grade.verdict != "correct"
    ] == []
