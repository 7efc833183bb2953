"""Grading with real math-verify in real processes: verdicts, hostile answers, processes that
die.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pyarrow as pa
import pytest

from engine.core import Grade, GraderName, Problem, Trajectory
from engine.errors import TaskError, XsampleError
from engine.store.schema import RESPONSES
from evaluators.grading import grader
from evaluators.grading.formula import Question, pose
from evaluators.grading.grader import Grader, grade_responses
from evaluators.grading.latex import tidy
from evaluators.grading.numbers import integer_digits
from evaluators.grading.pool import MathPool
from evaluators.grading.verdict import CORRECT, Verdict
from tests.support.grading_processes import grading_processes
from tests.support.paths import ROOT
from tests.support.waiting import comes_true

HOSTILE = r"9^{9^{9^9}}"
EASY, HARD = Question(("5",), ("4+1",)), Question(("5",), (HOSTILE,))


def problems(*gold: str) -> list[Problem]:
    return [
        Problem(str(number), f"question {number}", answer) for number, answer in enumerate(gold)
    ]


def key_of(problem: int, sample: int = 0) -> Trajectory:
    return Trajectory(str(problem), sample, "forward", 0)


def grade(pairs: list[tuple[str, str]], deadline_s: float = 300.0) -> list[str]:
    """Verdicts of (gold, boxed answer) pairs."""
    with Grader(problems(*(gold for gold, _ in pairs)), deadline_s=deadline_s) as grader:
        for problem, (_, answer) in enumerate(pairs):
            grader.submit(key_of(problem), rf"\boxed{{{answer}}}")
        grades = {grade.key: grade for grade in grader.finish()}
    return [grades[key_of(problem)].verdict for problem in range(len(pairs))]


def wait_until(condition: Callable[[], object]) -> None:
    assert comes_true(condition), "timed out waiting"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Future[Verdict]]:
    """Every question that a Grader puts to its processes, from now on."""
    questions: list[Future[Verdict]] = []
    submit = MathPool.submit

    def note(pool: MathPool, question: Question) -> Future[Verdict]:
        questions.append(submit(pool, question))
        return questions[-1]

    monkeypatch.setattr(MathPool, "submit", note)
    return questions


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


INTEGERS = [
    ("50", "50"),
    ("073", "73"),
    ("000", "0"),
    ("-0", "0"),
    ("+5", "5"),
    ("-05", "-5"),
    ("1,000", "1000"),
    ("1{,}000", "1000"),
    (r"1\,000", "1000"),
    (r"1,\!000", "1000"),
    ("12,345,678", "12345678"),
    ("9" * 6000, "9" * 6000),
]
NO_INTEGERS = [
    "",
    "$",
    "1,00",
    "1,0000",
    "10,00,000",
    "1,000{,}000",
    ",100",
    "1000,000",
    "1 000",
    "5.0",
    "5-",
    "1e3",
]
NO_INTEGERS += [
    "\N{ARABIC-INDIC DIGIT FIVE}",
    "\N{SUPERSCRIPT TWO}",
    "0x10",
    "1_000",
    "x",
    "--5",
    "5\n6",
]


@pytest.mark.parametrize(("text", "digits"), INTEGERS)
def test_a_plain_integer_is_read_by_its_digits(text: str, digits: str) -> None:
    assert integer_digits(text) == digits


@pytest.mark.parametrize("text", NO_INTEGERS)
def test_what_is_no_plain_integer_is_read_by_others(text: str) -> None:
    assert integer_digits(text) is None


@pytest.mark.parametrize(
    ("text", "formula"),
    [
        (r"$\frac12$", r"\frac12"),
        (r"\(x\).", "x"),
        ("the sum is $5$", "5"),
        ("$5$ and $6$", "5 and 6"),
        ("6$ $5", "6 5"),
        ("a\nb", "a b"),
        ("5 or $6$", "5 or 6"),
        (r"\displaystyle\dfrac12\,.", r"\frac12"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    ],
)
def test_a_formula_loses_its_delimiters_and_cannot_open_another(text: str, formula: str) -> None:
    assert tidy(text) == formula


def test_what_has_two_readings_is_asked_both_ways() -> None:
    assert pose("x", r"50\%") == Question(("x",), (r"\frac{50}{1}", r"\frac{1}{2}"))
    assert pose("50", r"x\%") == Question((r"\frac{50}{1}",), ("x", r"\frac{x}{100}"))


def test_integers_and_missing_answers_start_no_process() -> None:
    with Grader(problems("50", "7")) as grader:
        grader.submit(key_of(0), r"\boxed{050}")
        grader.submit(key_of(1), r"\boxed{8}")
        grader.submit(key_of(1, sample=1), "it is 7")
        grader.submit(key_of(1, sample=2), "it is what it is")
        assert grader.poll() == [
            Grade(key_of(0), "050", None, "boxed", "correct", True),
            Grade(key_of(1), "8", None, "boxed", "wrong", False),
            Grade(key_of(1, 1), None, "7", "last_number", "guessed", False),
            Grade(key_of(1, 2), None, None, None, "no_answer", False),
        ]
        assert grading_processes() == []


ASYMMETRIC = [("1", "2x + y = 1", "correct"), ("2x + y = 1", "1", "wrong")]


def test_the_gold_answer_comes_first() -> None:
    """An equation answers the question for its value; its value does not answer the question for an
    equation.
    """
    assert grade([(gold, answer) for gold, answer, _ in ASYMMETRIC]) == [
        verdict for _, _, verdict in ASYMMETRIC
    ]


def test_a_gold_answer_that_nobody_can_read_makes_answers_ungradable_and_not_wrong() -> None:
    assert grade([(r"\frac{1}{", "5"), (r"\int \int", "x")]) == ["ungradable", "ungradable"]


def test_a_grade_keeps_the_option_order_and_no_more_of_an_answer_than_a_reader_needs() -> None:
    with Grader([Problem("0", "?", "B", options=(1, 0, 2, 3))], "choice") as grader:
        grader.submit(key_of(0), r"\boxed{B) " + "long " * 10_000 + "}")
        [grade] = grader.finish()
    assert (grade.verdict, grade.options) == ("correct", (1, 0, 2, 3))
    assert grade.answer is not None
    assert len(grade.answer) == 2_000
    assert grade.answer.endswith("\N{HORIZONTAL ELLIPSIS}")


GRADERS: list[tuple[GraderName, str]] = [
    ("math", "correct"),
    ("integer", "wrong"),
    ("choice", "wrong"),
    ("exact", "wrong"),
]


@pytest.mark.parametrize(("name", "verdict"), GRADERS)
def test_the_grader_decides_what_an_answer_is_compared_by(name: GraderName, verdict: str) -> None:
    with Grader(problems("5"), name) as grader:
        grader.submit(key_of(0), r"\boxed{5.0}")
        assert [grade.verdict for grade in grader.finish()] == [verdict]


def test_hostile_numbers_are_killed_at_the_deadline_and_harm_no_other_answer() -> None:
    pairs = [
        ("5", HOSTILE),
        (r"2\sqrt2", r"\sqrt8"),
        ("5", "2**30**5"),
        ("5", "x" * 5000),
        ("2", "1+1"),
    ]
    assert grade(pairs, deadline_s=5.0) == [
        "timed_out",
        "correct",
        "wrong",
        "ungradable",
        "correct",
    ]
    assert CORRECT["timed_out"] is CORRECT["ungradable"] is None


def test_submit_and_poll_never_wait_for_a_hostile_number() -> None:
    """The first of a thousand is not decided when the last has been submitted."""
    with Grader(problems("5"), deadline_s=300.0) as grader:
        for sample in range(1000):
            grader.submit(key_of(0, sample), rf"\boxed{{{HOSTILE} + {sample}}}")
            assert grader.poll() == []
        wait_until(grading_processes)
        [process] = grading_processes()
        assert os.getsid(process.pid) != os.getsid(0), "the terminal's Ctrl-C would reach it"
    assert not is_running(process.pid), "leaving the block ends a busy process"


def test_a_full_queue_makes_submit_wait_for_a_place(
    monkeypatch: pytest.MonkeyPatch, asked: list[Future[Verdict]]
) -> None:
    monkeypatch.setattr(grader, "MAX_WAITING", 2)
    with Grader(problems("x")) as grading:
        for sample in range(5):
            grading.submit(key_of(0, sample), rf"\boxed{{x + {sample} - {sample % 4}}}")
            assert sum(not answer.done() for answer in asked) <= 2
        verdicts = [grade.verdict for grade in grading.finish()]
    assert sorted(verdicts) == ["correct"] * 4 + ["wrong"]


def test_equal_answers_to_one_problem_are_judged_once(asked: list[Future[Verdict]]) -> None:
    with Grader(problems(r"\frac12", "5"), deadline_s=1.0) as grader:
        for sample in range(20):
            grader.submit(key_of(1, sample), rf"\boxed{{{HOSTILE}}}")
        assert [grade.verdict for grade in grader.finish()] == ["timed_out"] * 20
        assert len(asked) == 1


def test_a_killed_idle_process_is_replaced_and_an_answer_that_kills_two_is_ungradable() -> None:
    pool = MathPool(workers=1, deadline_s=300.0)
    try:
        assert pool.submit(EASY).result(300) == "correct"
        [first] = pool.pids()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not is_running(first))
        busy = pool.submit(HARD)
        dead = {first}
        for _ in range(2):
            wait_until(lambda: set(pool.pids()) - dead)
            [pid] = set(pool.pids()) - dead
            os.kill(pid, signal.SIGKILL)
            dead.add(pid)
        assert busy.result(300) == "ungradable"
        assert pool.submit(EASY).result(300) == "correct"
    finally:
        pool.close()


def test_an_answer_whose_process_is_killed_once_is_still_judged() -> None:
    pool = MathPool(workers=1, deadline_s=5.0)
    try:
        assert pool.submit(EASY).result(300) == "correct"
        [first] = pool.pids()
        busy = pool.submit(HARD)
        os.kill(first, signal.SIGKILL)
        assert busy.result(300) == "timed_out"
        assert pool.pids() == []
    finally:
        pool.close()


def test_a_process_lives_on_however_much_memory_its_parent_has_had() -> None:
    ballast = b"x" * (400 << 20)
    pool = MathPool(workers=1, deadline_s=300.0)
    try:
        pids = [(pool.submit(EASY).result(300), *pool.pids()) for _ in range(3)]
    finally:
        pool.close()
    assert len(set(pids)) == 1, f"{len(ballast)} bytes of ours count as the process's own"


def test_a_process_that_cannot_start_is_an_error_and_no_verdict(
    monkeypatch: pytest.MonkeyPatch, asked: list[Future[Verdict]]
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Grader(problems("5", "6")) as grader:
        grader.submit(key_of(0), r"\boxed{4+1}")
        grader.submit(key_of(1), r"\boxed{6}")
        wait_until(lambda: asked[0].done())
        assert [grade.verdict for grade in grader.poll()] == ["correct"]
        with pytest.raises(XsampleError, match="/bin/false"):
            grader.finish()


PARENT = """
import signal, sys, time
signal.signal(signal.SIGALRM, signal.SIG_IGN)
from engine.core import GraderName, Problem
from engine.store.schema import Trajectory
from evaluators.grading.grader import Grader
from tests.support.grading_processes import grading_processes

grader = Grader([Problem("0", "", "5")], deadline_s=5.0)
grader.submit(Trajectory("0", 0, "forward", 0), r"\\boxed{4+1}")
assert grader.finish()[0].verdict == "correct"
if sys.argv[1] == "busy":
    grader.submit(Trajectory("0", 1, "forward", 0), r"\\boxed{9^{9^{9^9}}}")
    time.sleep(0.5)
print(*(process.pid for process in grading_processes()), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_process_ends_with_a_killed_parent_whose_main_is_an_unguarded_script(
    tmp_path: Path, state: str
) -> None:
    """Without extension and `if __name__`, as little of a module as a console script can be."""
    script = tmp_path / "xsample"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), state]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    wait_until(lambda: not is_running(pid))


def test_every_row_of_every_part_is_graded_once() -> None:
    texts = [r"\boxed{1/2}", "none", r"\boxed{5}", r"\boxed{0.3}"]
    rows = [
        _row(problem=str(number % 2), sample=number // 2, text=text)
        for number, text in enumerate(texts)
    ]
    parts = [pa.Table.from_pylist(part, schema=RESPONSES) for part in (rows[:3], [], rows[3:])]
    verdicts = {
        grade.key: grade.verdict for grade in grade_responses(parts, problems(r"\frac12", "5"))
    }
    expected = {
        key_of(0): "correct",
        key_of(1): "no_answer",
        key_of(0, 1): "wrong",
        key_of(1, 1): "wrong",
    }
    assert verdicts == expected


def test_a_response_to_a_problem_of_another_task_set_is_refused() -> None:
    with (
        Grader(problems("5")) as grader,
        pytest.raises(TaskError, match="'7' is not in the task set"),
    ):
        grader.submit(key_of(7), r"\boxed{5}")


def _row(problem: str, sample: int, text: str) -> dict[str, object]:
    return {
        "problem": problem, "sample": sample, "direction": "forward", "budget": 0,
        "prompt_token_ids": [1], "token_ids": [2], "tokens": 1, "text": text,
        "finish_reason": "stop", "interventions": 0, "effective_interventions": 0,
        "forked_from": None, "seed": 0,
    }  # fmt: skip
