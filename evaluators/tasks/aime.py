r"""AIME: the American Invitational Mathematics Examination, two papers of 15 problems a year.

    {"id": 7,
     "problem": "Find the number of positive divisors of $2^{3}\cdot 5^{17}$.",
     "answer": "072"}

becomes the Problem `aime24/7` with the answer `72`. (The example is ours.) An answer is an integer
from 0 to 999, which the exam writes with three digits. The published sets differ in the names of
their columns (see `columns.py`), in leading zeros and in boxes around the answer.
"""

from __future__ import annotations

from functools import partial

from engine.config.run_config import RunConfig
from engine.core import Problem
from engine.errors import TaskError
from evaluators.tasks.entries import read_entries
from evaluators.tasks.sources.distinct import Entry
from evaluators.tasks.sources.gold import aime_integer
from evaluators.tasks.task_set import LoadedProblems, TaskSet


def _load(task_set: TaskSet, config: RunConfig) -> LoadedProblems:
    place = config.task_data or task_set.source
    entries, notes = read_entries(config, place, "task_data", gold=_gold_integer)
    problems = [
        Problem(f"{task_set.name}/{entry.id}", entry.question, entry.answer) for entry in entries
    ]
    return LoadedProblems(problems, place, notes)


def _gold_integer(entry: Entry) -> str:
    answer = aime_integer(entry.answer)
    if answer is None:
        raise TaskError(
            f"{entry.where}: the gold answer {entry.answer[:80]!r} is no integer from 0 to 999, as"
            " AIME's are"
        )
    return answer


_aime = partial(TaskSet, num_problems=30, load=_load, samples=32)

AIME24 = _aime("aime24", "AIME 2024, I and II: competition mathematics", "HuggingFaceH4/aime_2024")
AIME25 = _aime("aime25", "AIME 2025, I and II: competition mathematics", "math-ai/aime25")
