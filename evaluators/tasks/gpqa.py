"""GPQA Diamond: graduate-level science questions with four options (arXiv:2311.12022).

    Record ID           rec07
    Question            Which of these gases is the lightest at the same pressure and temperature?
    Correct Answer      helium
    Incorrect Answer 1  neon
    Incorrect Answer 2  argon
    Incorrect Answer 3  xenon

is asked, with --seed 0, as

    Which of these gases is the lightest at the same pressure and temperature?

    A) neon
    B) xenon
    C) argon
    D) helium

with the gold answer D and the options (1, 3, 2, 0): option 1 of the source stands at letter A, and
option 0, the right one, at D. (The example is ours.) The order is a hash of record and seed alone,
so it never changes. The set is gated, and its authors ask that its examples appear nowhere in plain
text: this repository holds none, and messages name rows without quoting them.
"""

from __future__ import annotations

import hashlib

from engine.config.run_config import RunConfig
from engine.core import Problem
from engine.errors import TaskError
from evaluators.tasks.entries import Schema, read_entries
from evaluators.tasks.sources.distinct import Entry
from evaluators.tasks.task_set import LoadedProblems, TaskSet

LETTERS = "ABCD"
_SCHEMA = Schema(
    question=("Question",),
    answer=("Correct Answer",),
    id=("Record ID",),
    others=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
)


def _load(task_set: TaskSet, config: RunConfig) -> LoadedProblems:
    place = config.task_data or task_set.source
    entries, notes = read_entries(config, place, "task_data", _SCHEMA, subset="gpqa_diamond")
    problems = [_problem(task_set.name, entry, config.seed) for entry in entries]
    return LoadedProblems(problems, place, notes)


def _problem(name: str, entry: Entry, seed: int) -> Problem:
    order = option_order(entry.id or "", seed)
    texts = (entry.answer, *entry.others)
    if entry.answer in entry.others:
        raise TaskError(f"{entry.where}: a wrong option is the same as the right one")
    lines = [f"{letter}) {texts[option]}" for letter, option in zip(LETTERS, order, strict=True)]
    question = "\n".join([entry.question, "", *lines])
    return Problem(f"{name}/{entry.id}", question, LETTERS[order.index(0)], order)


def option_order(record_id: str, seed: int) -> tuple[int, ...]:
    """The options of the source in the order of the letters A to D.

    The options are sorted by the SHA-256 of (seed, option, record). The four hashes are
    independent, so every order is equally likely.

    Args:
        record_id: The record's id in the source.
        seed: The run's seed.

    Returns:
        Four indices: 0 is the right option, 1 to 3 the wrong ones as the source numbers them.
    """
    return tuple(
        sorted(range(len(LETTERS)), key=lambda option: _hash(f"{seed}/{option}/{record_id}"))
    )


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


GPQA_DIAMOND = TaskSet(
    "gpqa-diamond",
    "GPQA Diamond: science questions with four options (gated)",
    "Idavidrein/gpqa",
    num_problems=198,
    load=_load,
    prompt="gpqa",
    grader="choice",
    gated=True,
)
