"""The six verdicts on a response. Imports nothing of ours.

    correct      the answer equals the gold answer
    wrong        it does not
    no_answer    the response holds neither an answer nor anything like one
    guessed      it commits to no answer, but a lenient reader would take something in it for one
    timed_out    the comparison did not end within the deadline
    ungradable   nobody could compare: the grader failed on it, or it is absurdly long

Only the first counts as 1 in an accuracy; the other five count as 0 and are reported apart. A guess
is not compared with the gold answer: whether it is right would depend on who reads.
"""

from typing import Literal, get_args

Verdict = Literal["correct", "wrong", "no_answer", "guessed", "timed_out", "ungradable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

# What the column `correct` of a grade says; null where nobody knows.
CORRECT: dict[Verdict, bool | None] = {
    "correct": True,
    "wrong": False,
    "no_answer": False,
    "guessed": False,
    "timed_out": None,
    "ungradable": None,
}
