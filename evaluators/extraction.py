r"""From a response to the answer that it commits to. Pure functions on text, linear in its length.

In this order: only what follows the last `</think>`, if there is one; the last balanced, non-empty
`\boxed{}` (of nested ones the innermost); the last line `Answer: ...`. Nothing else is an answer: "the
last number" or "the answer is clearly D" would be a guess. Whether an answer is right is not asked here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_THINK_END = "</think>"

# An opening box (some models double the backslash), an escaped character (so that `\{` is no brace), or a brace.
_BRACES = re.compile(r"\\{1,4}boxed\s*\{|\\.|[{}]", re.DOTALL)

_MARKUP = r"[ \t>#*_`-]*"
_ANSWER_LINE = re.compile(rf"^{_MARKUP}(?:(?:the|my) )?(?:final )?answer{_MARKUP}[:\uff1a](.*)$", re.I | re.M)


@dataclass(frozen=True, slots=True)
class Extraction:
    """What was found. `method` is "boxed" or "answer_line"; both are None when there is no answer."""

    answer: str | None
    method: str | None


def extract(text: str) -> Extraction:
    """The answer of a response, or `Extraction(None, None)`."""
    text = after_thinking(text)
    for method, find in (("boxed", last_boxed), ("answer_line", last_answer_line)):
        answer = find(text)
        if answer is not None:
            return Extraction(answer, method)
    return Extraction(None, None)


def after_thinking(text: str) -> str:
    """What follows the last `</think>`; all of the text when there is none."""
    return text.rpartition(_THINK_END)[2]


def last_boxed(text: str) -> str | None:
    r"""Content of the last balanced, non-empty `\boxed{}`, stripped; an unclosed box is none."""
    last_start, content = -1, None
    opened: list[int] = []  # where the content of each open brace starts; -1 for a brace that is no box
    for match in _BRACES.finditer(text):
        token = match.group()
        if "boxed" in token:
            opened.append(match.end())
        elif token == "{":
            opened.append(-1)
        elif token == "}" and opened:
            start = opened.pop()
            inside = text[start : match.start()].strip() if start > last_start else ""
            if inside:
                last_start, content = start, inside
    return content


def last_answer_line(text: str) -> str | None:
    """What stands behind the colon of the last `Answer:` line that says something, without markup around it."""
    for match in reversed(list(_ANSWER_LINE.finditer(text))):
        answer = match.group(1).strip().strip("*_`").strip().removesuffix(".").rstrip("*_` \t")
        if answer:
            return answer
    return None
