"""Grading with real math-verify in real processes: verdicts, hostile answers, processes that die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from engine.errors import TaskError, XsampleError
from engine.problem import Problem, Task
from engine.record import RESPONSES, Grade, Trajectory
from evaluators.grading import grader
from evaluators.grading.grader import Grader, delimited, grade_table, integer
from evaluators.grading.pool import MathPool
from evaluators.grading.verdict import CORRECT

HOSTILE = r"9^{9^{9^9}}"
ROOT = Path(__file__).parents[1]


def task_of(*gold: str) -> Task:
    problems = tuple(Problem(str(number), f"question {number}", answer) for number, answer in enumerate(gold))
    return Task("maths", problems, "{question}", samples=1, max_tokens=1)


def key_of(problem: int, sample: int = 0) -> Trajectory:
    return Trajectory(str(problem), sample, "forward", 0)


def grade(pairs: list[tuple[str, str]], deadline_s: float = 30.0) -> list[str]:
    """Verdicts of (gold, boxed answer) pairs."""
    with Grader(task_of(*(gold for gold, _ in pairs)), deadline_s=deadline_s) as grader:
        for problem, (_, answer) in enumerate(pairs):
            grader.submit(key_of(problem), rf"\boxed{{{answer}}}")
        grades = {grade.key: grade for grade in grader.finish()}
    return [grades[key_of(problem)].verdict for problem in range(len(pairs))]


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out waiting"
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


INTEGERS = [
    ("50", "50"),
    (" 50 ", "50"),
    ("$50$", "50"),
    ("$$50$$", "50"),
    (r"\(50\)", "50"),
    (r"\[50\]", "50"),
    ("50.", "50"),
    ("$50", "50"),
    (r"\$50", "50"),
    ("$50.$", "50"),
    ("073", "73"),
    ("000", "0"),
    ("-0", "0"),
    ("+5", "5"),
    ("-05", "-5"),
    ("\N{MINUS SIGN}5", "-5"),
    ("1,000", "1000"),
    ("1{,}000", "1000"),
    (r"1\,000", "1000"),
    (r"1,\!000", "1000"),
    ("12,345,678", "12345678"),
    ("9" * 6000, "9" * 6000),
]
NO_INTEGERS = ["", "$", "1,00", "1,0000", "10,00,000", "1,000{,}000", ",100", "1000,000", "1 000", "5.0", "5-", "1e3"]
NO_INTEGERS += ["\N{ARABIC-INDIC DIGIT FIVE}", "\N{SUPERSCRIPT TWO}", "0x10", "1_000", "x", "--5", "5\n6"]


@pytest.mark.parametrize(("text", "digits"), INTEGERS)
def test_a_plain_integer_is_read_by_its_digits(text: str, digits: str) -> None:
    assert integer(text) == digits


@pytest.mark.parametrize("text", NO_INTEGERS)
def test_what_is_no_plain_integer_is_left_to_math_verify(text: str) -> None:
    assert integer(text) is None


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
    ],
)
def test_a_formula_loses_its_delimiters_and_cannot_open_another(text: str, formula: str) -> None:
    assert delimited(text) == formula


def test_integers_and_missing_answers_start_no_process() -> None:
    with Grader(task_of("50", "7")) as grader:
        grader.submit(key_of(0), r"\boxed{050}")
        grader.submit(key_of(1), r"\boxed{8}")
        grader.submit(key_of(1, sample=1), "it is 7")
        assert grader.poll() == [
            Grade(key_of(0), "050", "boxed", "correct", True),
            Grade(key_of(1), "8", "boxed", "wrong", False),
            Grade(key_of(1, 1), None, None, "no_answer", False),
        ]
        assert grader._pool.pids() == []


RIGHT = [
    (r"\frac{1}{2}", "1/2"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac{1}{2}", r"\dfrac12"),
    (r"\frac{3}{4}", "$\\frac{3}{4}$."),
    ("5", "5.0"),
    ("5", "x = 5"),
    ("073", r"\frac{146}{2}"),
    (r"2\sqrt{2}", r"\sqrt{8}"),
    ("x^2+1", "1+x^2"),
    (r"\{1,2\}", r"\{2,1\}"),
    ("5", r"5\text{ cm}"),
    ("0<x<1", "(0,1)"),
]
WRONG = [
    ("123", "1,23"),
    ("5", "5 or 6"),
    ("5", "6$ $5"),
    ("5", "I do not know"),
    ("5", "__import__('os')._exit(0)"),
    ("5", r"\frac"),
    (r"\frac{1}{2}", "1/3"),
    ("(0,1)", "0<x<1"),
]


def test_formulas_are_compared_by_their_meaning_and_the_gold_one_comes_first() -> None:
    """`0<x<1` takes the interval (0,1) as an answer; the interval does not take the inequality."""
    assert grade(RIGHT + WRONG) == ["correct"] * len(RIGHT) + ["wrong"] * len(WRONG)


def test_hostile_numbers_are_killed_at_the_deadline_and_harm_no_other_answer() -> None:
    pairs = [("5", HOSTILE), (r"\frac12", "0.5"), ("5", "2**30**5"), ("5", "x" * 5000), ("2", "1+1")]
    assert grade(pairs, deadline_s=2.0) == ["timed_out", "correct", "wrong", "ungradable", "correct"]
    assert CORRECT["timed_out"] is CORRECT["ungradable"] is None


def test_submit_and_poll_never_wait_for_a_hostile_number() -> None:
    with Grader(task_of("5"), deadline_s=60.0) as grader:
        start = time.monotonic()
        for sample in range(1000):
            grader.submit(key_of(0, sample), rf"\boxed{{{HOSTILE} + {sample}}}")
            assert grader.poll() == []
        assert time.monotonic() - start < 5.0
        wait_until(grader._pool.pids)
        [pid] = grader._pool.pids()
        assert os.getsid(pid) != os.getsid(0), "the terminal's Ctrl-C would reach it"
    assert not is_running(pid), "leaving the block ends a busy process"


def test_a_full_queue_makes_submit_wait_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grading, "MAX_WAITING", 2)
    with Grader(task_of(r"\frac12")) as grader:
        for sample in range(5):
            grader.submit(key_of(0, sample), rf"\boxed{{{sample}/{2 * sample + (sample == 0)}}}")
            assert grader._num_waiting <= 2
        verdicts = [grade.verdict for grade in grader.finish()]
    assert sorted(verdicts) == ["correct"] * 4 + ["wrong"]


def test_equal_answers_to_one_problem_are_judged_once() -> None:
    with Grader(task_of(r"\frac12", "5"), deadline_s=1.0) as grader:
        start = time.monotonic()
        for sample in range(20):
            grader.submit(key_of(1, sample), rf"\boxed{{{HOSTILE}}}")
        assert [grade.verdict for grade in grader.finish()] == ["timed_out"] * 20
        assert time.monotonic() - start < 15.0


def test_a_process_killed_while_idle_is_replaced_and_one_killed_twice_over_an_answer_leaves_it_ungradable() -> None:
    pool = MathPool(workers=1, deadline_s=60.0)
    try:
        assert pool.submit(r"\frac12", "0.5").result(60) == "correct"
        [first] = pool.pids()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not is_running(first))
        busy = pool.submit("5", HOSTILE)
        dead = {first}
        for _ in range(2):
            wait_until(lambda: set(pool.pids()) - dead)
            [pid] = set(pool.pids()) - dead
            os.kill(pid, signal.SIGKILL)
            dead.add(pid)
        assert busy.result(60) == "ungradable"
        assert pool.submit(r"\frac12", "0.5").result(60) == "correct"
    finally:
        pool.close()


def test_an_answer_whose_process_is_killed_once_is_still_judged() -> None:
    pool = MathPool(workers=1, deadline_s=1.5)
    try:
        assert pool.submit("5", "4+1").result(60) == "correct"
        [first] = pool.pids()
        busy = pool.submit("5", HOSTILE)
        os.kill(first, signal.SIGKILL)
        assert busy.result(60) == "timed_out"
        assert pool.pids() == []
    finally:
        pool.close()


def test_a_process_that_cannot_start_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Grader(task_of("5", "6")) as grader:
        grader.submit(key_of(0), r"\boxed{4+1}")
        grader.submit(key_of(1), r"\boxed{6}")
        wait_until(lambda: grader._decided.qsize() == 2)
        assert [grade.verdict for grade in grader.poll()] == ["correct"]
        with pytest.raises(XsampleError, match="/bin/false"):
            grader.finish()


PARENT = """
import sys, time
from engine.problem import Problem, Task
from engine.record import Trajectory
from evaluators.grading.grader import Grader

grader = Grader(Task("maths", (Problem("0", "", "5"),), "{question}", 1, 1), deadline_s=2.0)
grader.submit(Trajectory("0", 0, "forward", 0), r"\\boxed{4+1}")
assert grader.finish()[0].verdict == "correct"
if sys.argv[1] == "busy":
    grader.submit(Trajectory("0", 1, "forward", 0), r"\\boxed{9^{9^{9^9}}}")
    time.sleep(0.5)
print(*grader._pool.pids(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_process_ends_with_a_killed_parent_whose_main_is_an_unguarded_script(tmp_path: Path, state: str) -> None:
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
    wait_until(lambda: not is_running(pid), timeout_s=15.0)


def test_a_table_is_graded_row_by_row_in_its_order() -> None:
    texts = [r"\boxed{1/2}", "none", r"\boxed{5}", r"\boxed{0.3}"]
    rows = [_row(problem=str(number % 2), sample=number // 2, text=text) for number, text in enumerate(texts)]
    grades = grade_table(pa.Table.from_pylist(rows, schema=RESPONSES), task_of(r"\frac12", "5"))
    assert [grade.key for grade in grades] == [key_of(0), key_of(1), key_of(0, 1), key_of(1, 1)]
    assert [grade.verdict for grade in grades] == ["correct", "no_answer", "wrong", "wrong"]


def test_a_response_to_a_problem_of_another_task_is_refused() -> None:
    with Grader(task_of("5")) as grader, pytest.raises(TaskError, match="'7' is not in task 'maths'"):
        grader.submit(key_of(7), r"\boxed{5}")


def _row(problem: str, sample: int, text: str) -> dict[str, object]:
    return {
        "problem": problem, "sample": sample, "direction": "forward", "budget": 0, "prompt_token_ids": [1],
        "token_ids": [2], "tokens": 1, "text": text, "finish_reason": "stop", "interventions": 0,
        "effective_interventions": 0, "forked_from": None, "seed": 0,
    }  # fmt: skip
