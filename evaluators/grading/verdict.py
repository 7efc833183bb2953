"""The six verdicts on a response. Imports nothing of ours.

    correct      the answer equals the gold answer
    wrong        the answer does not equal the gold answer
    no_answer    the response holds neither an answer nor a guess
    guessed      the response holds no answer, but a guess: a lenient reader's answer
    timed_out    the comparison did not end within the deadline
    ungradable   the answer cannot be compared: the grader failed on it, or it is absurdly long

`correct` counts as 1 in an accuracy. The other five count as 0 and are reported apart. A guess is
not compared with the gold answer: whether it is right would depend on the reader.
"""

from typing import Literal, get_args

Verdict = Literal["correct", "wrong", "no_answer", "guessed", "timed_out", "ungradable"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

CORRECT: dict[Verdict, bool | None] = {
    "correct": True,
    "wrong": False,
    "no_answer": False,
    "guessed": False,
    "timed_out": None,
    "ungradable": None,
}
"""The column `correct` of a grade; None where the comparison failed."""
