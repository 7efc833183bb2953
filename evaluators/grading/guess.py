"""The guess in a response without an answer: what a lenient reader would take for one. Pure.

    sentence      "the answer is definitely (B)", "the answer is 50"
    last_number   the text ends on a number: "so it is 49, or 50"
    last_letter   the text ends on an option's letter that stands alone: "**D**"

Only the end of the text is read. A guess is stored beside its verdict `guessed`, and never
compared: whether it is right would depend on the reader.
"""

from __future__ import annotations

import re
from typing import Literal

GuessKind = Literal["number", "letter", "words"]

_TAIL_CHARS = 300

_NUMBER = r"[-+]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:\s?/\s?\d+|\s?\\?%)?"
_CLOSING = r"(?:\s|[.*_`$}\]]|\\[)\]])*$"
_SAYS = (
    r"\b(?:answer|option|choice|result)"
    r"(?:\s+is|\s+must\s+be|\s+would\s+be|\s+should\s+be|\s*[=:])\s*:?\s*"
)
# Adverbs and articles between "is" and the answer: words in lower case, no end of a sentence.
_FILLING = r"(?:(?!not\b)[a-z]+,?\s+){0,4}[\s$*_`\\({\[]*(?:boxed|text(?:bf)?|mathbf)?[\s{(]*"
_SENTENCE = {
    "number": re.compile(rf"{_SAYS}{_FILLING}({_NUMBER})(?![\w.]*\w)"),
    # A letter followed by a word may be an article: it counts in brackets, or where nothing
    # follows.
    "letter": re.compile(rf"{_SAYS}{_FILLING}([A-Z])(?=\s*(?:[)\]}}*.,;:!$\n]|$))"),
    "words": re.compile(rf"{_SAYS}([^\n.]*[^\s.])"),
}
_LAST = {
    "number": ("last_number", re.compile(rf"(?<![\w.,\\^/{{])({_NUMBER}){_CLOSING}")),
    "letter": ("last_letter", re.compile(rf"(?<![\w'\\-])([A-Z])\)?{_CLOSING}")),
}


def guess(text: str, kind: GuessKind) -> tuple[str | None, str | None]:
    """The last guess of one kind in the last _TAIL_CHARS of a text.

    Args:
        text: A response without an answer.
        kind: The kind of guess that is looked for.

    Returns:
        (guess, method), or (None, None).
    """
    tail = text[-_TAIL_CHARS:]
    sentences = list(_SENTENCE[kind].finditer(tail))
    if sentences:
        return sentences[-1][1].strip(), "sentence"
    method, pattern = _LAST.get(kind, (None, None))
    last = pattern.search(tail) if pattern else None
    return (last[1], method) if last else (None, None)
