"""The five verdicts on a response. Imports nothing of ours.

    correct      the answer equals the gold answer
    wrong        it does not
    no_answer    the response holds no answer (a guess is none)
    timed_out    the comparison did not end within the deadline
    ungradable   nobody could compare: the grader failed on it twice, or it is absurdly long

Only the first counts as 1 in an accuracy; the other four count as 0 and are reported apart.
"""

from typing import Literal, get_args

Verdict = Literal["correct", "wrong", "no_answer", "timed_out", "ungradable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

# What the column `correct` of a grade says; null where nobody knows.
CORRECT: dict[Verdict, bool | None] = {
    "correct": True,
    "wrong": False,
    "no_answer": False,
    "timed_out": None,
    "ungradable": None,
}
