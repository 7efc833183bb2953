r"""Answers that would hang, fill or take over a grader: each ends in a verdict, and the processes
stay healthy.
"""

import os
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.reading import PIECES, read
from engine.core import Grade, Problem, Trajectory
from evaluators.grading import math_worker
from evaluators.grading.comparators import COMPARATORS
from evaluators.grading.grader import Grader
from evaluators.grading.math_worker import MEMORY_BYTES
from evaluators.grading.verdict import VERDICTS
from tests.support.grading_processes import grading_processes
from tests.support.paths import ROOT
from tests.support.work import count_lines

DEADLINE_S = 3.0
WORKERS = 2
TOUCHED = "touched-by-an-answer"

AS_PYTHON = [
    f"__import__('os').system('touch {TOUCHED}')",
    rf"\text{{__import__('os').system('touch {TOUCHED}')}}",
    rf"\operatorname{{__import__('os').system('touch {TOUCHED}')}}(5)",
    f"exec(\"open('{TOUCHED}', 'w')\")",
    rf"\operatorname{{exec}}(open('{TOUCHED}','w'))",
    "lambda: 1",
    "5 if 1 else os._exit(0)",
    "[x for x in ().__class__.__base__.__subclasses__()]",
]
NUMBERS = [
    "9!!!!!!!",
    "2**30**5",
    "10^{10^{10}}",
    r"\binom{10^9}{5\cdot10^8}",
    r"\Gamma(10^9)",
    r"\zeta(3)^{10^9}",
    "1e999999999",
    "5" * 1_000_000,
]
CALCULUS = [
    r"\sum_{n=1}^{10^{12}} n^n",
    r"\int_0^{\infty} e^{-x^x} \sin(x^x) dx",
    "(x+y+z+1)^{10^6}",
    r"\begin{vmatrix}"
    + r"\\".join("&".join(f"x^{{{i * j}}}" for i in range(9)) for j in range(9))
    + r"\end{vmatrix}",
    r"\operatorname{zeros}(100000, 100000)",
    r"\frac{0}{0}",
    r"\infty - \infty",
]
NESTED = [
    "{" * 10_000 + "5" + "}" * 10_000,
    "{" * 900 + "5" + "}" * 900,
    r"\frac{" * 200 + "1" + "}{2}" * 200,
    r"\sqrt{" * 200 + "2" + "}" * 200,
    r"\def\x{\x\x}\x",
    r"\newcommand{\x}{\x\x}\x",
    r"\begin{matrix}" * 100,
]
CHARACTERS = [
    "5\x00",
    "\x1b[2J5\x1b[0m",
    "\ud800\udfff5",
    "\u202e5\u202c",
    "5" + "\u0301" * 5_000,
    "\n" * 5_000 + "6",
    "\\" * 2_000,
    "$" * 2_000,
    "\N{SQUARE ROOT}" * 1_900,
    "\N{SUPERSCRIPT TWO}" * 1_900,
]
HOSTILE = [*AS_PYTHON, *NUMBERS, *CALCULUS, *NESTED, *CHARACTERS]


def responses() -> list[str]:
    """A box where braces allow one, an answer line otherwise; neither finds an answer in some of
    them.
    """
    return [
        rf"\boxed{{{text}}}" if text.count("{") == text.count("}") else f"Answer: {text}"
        for text in HOSTILE
    ]


class Ordeal:
    """All hostile answers through one grader, and two harmless ones through the same afterwards."""

    def __init__(self) -> None:
        with Grader([Problem("0", "", "5")], "math", WORKERS, DEADLINE_S) as grader:
            for sample, text in enumerate(responses()):
                grader.submit(Trajectory("0", sample, "forward", 0), text)
            self.grades = {grade.key.sample: grade for grade in grader.finish()}
            grader.submit(Trajectory("0", -1, "forward", 0), r"\boxed{\sqrt{25}}")
            grader.submit(Trajectory("0", -2, "forward", 0), r"\boxed{\sqrt{36}}")
            self.after = {grade.key.sample: grade.verdict for grade in grader.finish()}


@pytest.fixture(scope="module")
def ordeal(tmp_path_factory: pytest.TempPathFactory) -> Ordeal:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("cwd"))
    try:
        ordeal = Ordeal()
        assert not list(Path.cwd().iterdir()), "an answer wrote a file"
        return ordeal
    finally:
        os.chdir(before)


def test_each_ends_in_a_verdict(ordeal: Ordeal) -> None:
    assert sorted(ordeal.grades) == list(range(len(HOSTILE)))
    assert {grade.verdict for grade in ordeal.grades.values()} <= set(VERDICTS)


def test_none_of_them_is_right(ordeal: Ordeal) -> None:
    right = [sample for sample, grade in ordeal.grades.items() if grade.correct]
    assert {HOSTILE[sample] for sample in right} <= {"5\x00", "\u202e5\u202c", "\ud800\udfff5"}


def test_numbers_beyond_any_memory_time_out_and_what_looks_like_python_is_only_wrong(
    ordeal: Ordeal,
) -> None:
    verdicts = {HOSTILE[sample]: grade.verdict for sample, grade in ordeal.grades.items()}
    assert verdicts["10^{10^{10}}"] == verdicts["9!!!!!!!"] == "timed_out"
    assert {verdicts[text] for text in AS_PYTHON} == {"wrong"}


def test_afterwards_the_pool_is_healthy(ordeal: Ordeal) -> None:
    assert ordeal.after == {-1: "correct", -2: "wrong"}


def test_no_process_may_grow_beyond_its_cap() -> None:
    with Grader([Problem("0", "", "5")]) as grader:
        grader.submit(Trajectory("0", 0, "forward", 0), r"\boxed{\sqrt{25}}")
        grader.finish()
        [process] = grading_processes()
        assert process.rlimit(psutil.RLIMIT_AS) == (MEMORY_BYTES, MEMORY_BYTES)


def test_what_is_stored_of_an_answer_is_short_and_can_be_written(ordeal: Ordeal) -> None:
    def stored(grade: Grade) -> str:
        return (grade.answer or "") + (grade.guess or "")

    assert max(len(stored(grade)) for grade in ordeal.grades.values()) <= 2_000
    assert all(stored(grade).encode() is not None for grade in ordeal.grades.values())


ATTEMPTS = """
    import os, socket, subprocess, sys
    sys.path.insert(0, {root!r})
    from evaluators.grading import math_worker

    math_worker.forbid_side_effects()
    code = compile.__self__.__dict__  # builtins, under a name that no guard looks at
    attempts = {{
        "eval": lambda: code["eval"]("1 + 1"),
        "exec": lambda: code["exec"]("x = 1"),
        "compile": lambda: code["compile"]("1", "<formula>", "eval"),
        "write": lambda: open({path!r}, "w"),
        "append": lambda: open({path!r}, "a"),
        "create": lambda: os.open({path!r}, os.O_RDONLY | os.O_CREAT),
        "mkdir": lambda: os.mkdir({path!r}),
        "remove": lambda: os.remove(__file__),
        "system": lambda: os.system("true"),
        "popen": lambda: subprocess.Popen(["true"]),
        "fork": os.fork,
        "execv": lambda: os.execv("/bin/true", ["true"]),
        "socket": socket.socket,
        "ctypes": lambda: __import__("ctypes").CDLL(None),
        "pickle": lambda: __import__("pickle").loads(b"cos\\nsystem\\n(S'true'\\ntR."),
    }}
    for name, attempt in attempts.items():
        try:
            attempt()
            print(name)
        except PermissionError:
            pass
    print(open(__file__).read(1) and "reading is allowed")
"""


def test_a_grading_process_only_computes(tmp_path: Path) -> None:
    script, path = tmp_path / "attempts.py", tmp_path / TOUCHED
    script.write_text(textwrap.dedent(ATTEMPTS).format(root=str(ROOT), path=str(path)))
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300
    )
    assert (done.stdout, done.returncode) == ("reading is allowed\n", 0), done.stderr
    assert not path.exists()


@pytest.mark.parametrize(
    "text", ["__import__('os')", "1+1", "().__class__", "f(1)", "1e5.real", "0x10", "1_000", "x y"]
)
def test_sympy_reads_numerals_and_names_and_evaluates_nothing(text: str) -> None:
    with pytest.raises(SyntaxError):
        math_worker.parse_number(text)


SOME = st.lists(st.sampled_from(PIECES), max_size=4).map("".join)


@settings(deadline=None)
@given(SOME, SOME.filter(bool), SOME)
def test_reading_an_answer_is_little_work_whatever_it_repeats(
    before: str, repeated: str, after: str
) -> None:
    text = before + repeated * (1_900 // len(repeated)) + after
    assert count_lines(lambda: read(text)) <= 100 * len(text)
    for compare in COMPARATORS.values():
        compare(text, "5")


@pytest.mark.parametrize("piece", PIECES)
def test_reading_is_work_that_is_linear_in_the_length_of_an_answer(piece: str) -> None:
    """What regular expressions add to it, benchmarks/reading measures."""
    once, twice = (count_lines(partial(read, piece * n)) for n in (2_000, 4_000))
    assert twice <= 2.1 * once + 100
    read(piece * 50_000)
