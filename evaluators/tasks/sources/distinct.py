"""Rows -> distinct problems with ids that do not depend on the order of the rows. Pure functions.

Rows that ask the same question are one problem. If their gold answers differ, neither is trusted,
and the source is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from engine.errors import TaskError

MAX_ID_CHARS = 200
NUM_HASH_DIGITS = 12


class Entry(NamedTuple):
    """One row as a problem."""

    where: str
    """The row's place, for messages."""
    id: str | None
    question: str
    answer: str
    others: tuple[str, ...] = ()
    """Multiple choice only: the wrong options in the order of the source."""


def deduplicate(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """Keep one of the entries that ask the same question.

    Questions are compared without regard to white space and to the order of options. The first
    entry is kept, with the lowest id of those that repeat it.

    Returns:
        The distinct entries, and a note if some were repeated.

    Raises:
        TaskError: Two entries ask the same question and have different gold answers.
    """
    first: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        key = _question_key(entry)
        earlier = first.setdefault(key, entry)
        if _normal_answer(earlier.answer) != _normal_answer(entry.answer):
            raise TaskError(
                f"{entry.where} repeats the question of {earlier.where} with another gold answer"
            )
        if entry.id is not None and (earlier.id is None or entry.id < earlier.id):
            first[key] = earlier._replace(id=entry.id)
    if len(first) == len(entries):
        return list(entries), []
    return list(first.values()), [
        f"{len(entries):,} rows hold {len(first):,} problems: repeated ones are taken once"
    ]


def identify(entries: Sequence[Entry], id_column: str | None) -> tuple[list[Entry], list[str]]:
    """Give every entry an id: the source's, or a hash of the question for all of them.

    The source's ids are used if each is there, printable on one line, no longer than MAX_ID_CHARS
    and unique.

    Args:
        entries: Distinct entries.
        id_column: The column of ids that the user names; None if the user names none.

    Returns:
        The entries with ids, and a note if ids of the source are replaced.

    Raises:
        TaskError: The ids of the user's column cannot be used.
    """
    fault = _fault(entries)
    if fault is None:
        return list(entries), []
    if id_column is not None:
        raise TaskError(f"id_column is {id_column!r}: {fault}")
    hashed = [entry._replace(id=_hash_of_key(entry)) for entry in entries]
    if all(entry.id is None for entry in entries):
        return hashed, []
    return hashed, [f"problems are called by a hash of their question, as {fault}"]


def question_hash(question: str) -> str:
    """The id of a problem without one: the start of the SHA-256 of its question.

    White space in the question is normalised first.
    """
    return hashlib.sha256(_normal(question).encode()).hexdigest()[:NUM_HASH_DIGITS]


def _hash_of_key(entry: Entry) -> str:
    return question_hash("\n".join(_question_key(entry)))


def _question_key(entry: Entry) -> tuple[str, ...]:
    """The key of a problem: the question and, in multiple choice, the options in sorted order."""
    options = sorted(map(_normal, [entry.answer, *entry.others])) if entry.others else []
    return (_normal(entry.question), *options)


def _fault(entries: Sequence[Entry]) -> str | None:
    """Why the ids of the source cannot be used; None if they can."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        if entry.id is None:
            return f"{entry.where} has no id"
        if not entry.id.isprintable() or len(entry.id) > MAX_ID_CHARS:
            return (
                f"the id of {entry.where} is no printable line of at most {MAX_ID_CHARS} characters"
            )
        if entry.id in seen:
            return f"{seen[entry.id].where} and {entry.where} have the same id, {entry.id!r}"
        seen[entry.id] = entry
    return None


def _normal_answer(answer: str) -> str:
    """An answer without leading zeros, so that `073` and `73` are the same."""
    return re.sub(r"^0+(?=\d+$)", "", _normal(answer))


def _normal(text: str) -> str:
    return " ".join(text.split())
