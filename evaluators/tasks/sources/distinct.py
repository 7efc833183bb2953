"""Rows that ask the same are one problem, and every problem has an id that no new order of the rows
changes.

Pure functions. If rows that ask the same have different gold answers there is none to be trusted.
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
    """One row as a problem. `where` is for messages; `others` are the wrong options of a multiple
    choice, as the source orders them.
    """

    where: str
    id: str | None
    question: str
    answer: str
    others: tuple[str, ...] = ()


def distinct(entries: Sequence[Entry]) -> tuple[list[Entry], list[str]]:
    """One of the entries that ask the same, white space and the order of options apart, with the
    lowest of their ids; and a note on it. Raises TaskError where their gold answers differ.
    """
    first: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        earlier = first.setdefault(_asked(entry), entry)
        if _comparable(earlier.answer) != _comparable(entry.answer):
            raise TaskError(
                f"{entry.where} repeats the question of {earlier.where} with another gold answer"
            )
        if entry.id is not None and (earlier.id is None or entry.id < earlier.id):
            first[_asked(entry)] = earlier._replace(id=entry.id)
    if len(first) == len(entries):
        return list(entries), []
    return list(first.values()), [
        f"{len(entries):,} rows hold {len(first):,} problems: repeated ones are taken once"
    ]


def identified(entries: Sequence[Entry], id_column: str | None) -> tuple[list[Entry], list[str]]:
    """The entries, each with an id: that of the source or, where those are of no use, a hash of the
    question.

    Of no use: missing, not printable on one line, longer than MAX_ID_CHARS, or given twice. Raises
    TaskError if the user named the column.
    """
    fault = _fault(entries)
    if fault is None:
        return list(entries), []
    if id_column is not None:
        raise TaskError(f"id_column is {id_column!r}: {fault}")
    hashed = [entry._replace(id=question_hash("\n".join(_asked(entry)))) for entry in entries]
    has_column = any(entry.id is not None for entry in entries)
    return hashed, [
        f"problems are called by a hash of their question, as {fault}"
    ] if has_column else []


def question_hash(question: str) -> str:
    """Id of a problem that has none: the start of the SHA-256 of its question, white space
    apart.
    """
    return hashlib.sha256(_normal(question).encode()).hexdigest()[:NUM_HASH_DIGITS]


def _asked(entry: Entry) -> tuple[str, ...]:
    """What makes two entries one problem: the question and, in multiple choice, the set of
    options.
    """
    options = sorted(map(_normal, [entry.answer, *entry.others])) if entry.others else []
    return (_normal(entry.question), *options)


def _fault(entries: Sequence[Entry]) -> str | None:
    """Why the ids of the source cannot be used, if so."""
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


def _comparable(answer: str) -> str:
    """`073` and `73` are one answer."""
    return re.sub(r"^0+(?=\d+$)", "", _normal(answer))


def _normal(text: str) -> str:
    return " ".join(text.split())
