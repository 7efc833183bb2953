"""Tables of graded responses, written as short rows, whose scores can be worked out by hand."""

from typing import Any

import pyarrow as pa

from engine.store.schema import GRADES, RESPONSES

# direction, budget, problem, sample, tokens, finish_reason, interventions, effective, verdict, and
# maybe the answer
ROWS = [
    ("reverse", 0, "a", 0, 10, "stop", 0, 0, "correct"),
    ("forward", None, "a", 0, 10, "stop", 4, 2, "correct"),
    ("forward", None, "a", 1, 20, "stop", 2, 1, "wrong"),
    ("forward", None, "b", 0, 30, "length", 0, 0, "no_answer"),
    ("forward", None, "b", 1, 60, "length", 6, 3, "timed_out"),
    ("forward", 8, "a", 0, 10, "stop", 1, 1, "ungradable"),
    ("forward", 8, "b", 0, 10, "stop", 1, 0, "correct"),
    ("forward", 0, "a", 0, 10, "stop", 0, 0, "wrong"),
]
_UNNAMED = {
    "prompt_token_ids": [1], "text": "", "forked_from": None, "seed": 0,
}  # fmt: skip


def tables(rows: list[tuple[Any, ...]]) -> tuple[pa.Table, pa.Table]:
    """The responses and, in the opposite order, the grades of rows like those of ROWS."""
    responses, grades = [], []
    for direction, budget, problem, sample, num_tokens, *rest in rows:
        finish_reason, interventions, effective, verdict, *answer = rest
        key = {"direction": direction, "budget": budget, "problem": problem, "sample": sample}
        counts = {
            "tokens": num_tokens,
            "token_ids": [2] * num_tokens,
            "finish_reason": finish_reason,
            "interventions": interventions,
            "effective_interventions": effective,
        }
        responses.append(key | _UNNAMED | counts)
        graded = {"answer": answer[0] if answer else None, "verdict": verdict, "correct": None}
        grades.append(key | graded)
    return (
        pa.Table.from_pylist(responses, schema=RESPONSES),
        pa.Table.from_pylist(grades[::-1], schema=GRADES),
    )


def samples(
    answers: dict[str, list[str | None]], direction: str = "forward", budget: int | None = 0
) -> list[tuple[Any, ...]]:
    """Rows of one arm from the answers to each problem.

    Args:
        answers: By problem, an answer a sample: "gold" is correct, None is no answer.
    """
    verdicts = {"gold": "correct", None: "no_answer"}
    return [
        (direction, budget, problem, sample, 10, "stop", 0, 0, verdict, answer)
        for problem, given in answers.items()
        for sample, answer in enumerate(given)
        for verdict in [verdicts.get(answer, "wrong")]
    ]
