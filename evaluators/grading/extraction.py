r"""The text of a response -> the answer that it commits to. Pure functions, linear in the length.

Only the text after the last `</think>` is read, if there is one. The answer is

    1. the content of the last balanced, non-empty `\boxed{}`, the innermost of nested boxes; else
    2. the rest of the last line `Answer: ...`.

Anything else ("the last number", "the answer is clearly D") is a guess, and kept apart. Thinking
that is never closed is read, too: many templates open it in the prompt, so the response does not
show whether it was opened, and the same text must always get the same answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from evaluators.grading.guess import GuessKind, guess

_THINK_END = "</think>"

# An opening box (some models double the backslash), an escaped character (so that `\{` is no
# brace), or a brace.
_BRACES = re.compile(r"\\{1,4}boxed\s*\{|\\.|[{}]", re.DOTALL)

_MARKUP = r"[ \t>#*_`|\"-]*"
# At the start of a line, or directly behind the end of a sentence.
_ANSWER_LINE = re.compile(
    rf"(?:^{_MARKUP}|(?<=[.!?] )[*_]*)(?:(?:the|my) )?(?:(?:final|correct)"
    rf" )?answer{_MARKUP}[:\uff1a]",
    re.I | re.M,
)


@dataclass(frozen=True, slots=True)
class Extraction:
    """An answer, or a guess, or neither."""

    answer: str | None = None
    guess: str | None = None
    method: str | None = None
    """"boxed" or "answer_line" for an answer; "sentence", "last_number" or "last_letter" for a
    guess.
    """


def extract(text: str, guess_kind: GuessKind = "number") -> Extraction:
    """The answer of a response or, without one, its guess.

    Args:
        text: The response.
        guess_kind: The kind of guess that is looked for.
    """
    text = strip_thinking(text)
    for method, find in (("boxed", last_boxed), ("answer_line", last_answer_line)):
        answer = find(text)
        if answer is not None:
            return Extraction(answer, None, method)
    return Extraction(None, *guess(text, guess_kind))


def strip_thinking(text: str) -> str:
    """Remove the text before the last `</think>`, and the tag."""
    return text.rpartition(_THINK_END)[2]


def last_boxed(text: str) -> str | None:
    r"""Content of the last balanced, non-empty `\boxed{}`, stripped; None if there is none."""
    last_start, content = -1, None
    # For each open brace, the index at which the content of its box starts; -1 if it is no box.
    starts: list[int] = []
    for match in _BRACES.finditer(text):
        token = match.group()
        if "boxed" in token:
            starts.append(match.end())
        elif token == "{":
            starts.append(-1)
        elif token == "}" and starts:
            start = starts.pop()
            inside = text[start : match.start()].strip() if start > last_start else ""
            if inside.strip("$ "):
                last_start, content = start, inside
    return content


def last_answer_line(text: str) -> str | None:
    """The rest of the last `Answer:` line that is not empty, without markup; None if there is none.

    A line whose box is empty or cut off is passed over.
    """
    end = len(text)
    for match in reversed(list(_ANSWER_LINE.finditer(text))):
        line = text[match.end() : end].partition("\n")[0]
        answer = line.strip().strip('*_`|"').strip().removesuffix(".").rstrip('*_`|" \t')
        if answer.strip("$ ") and not _has_broken_box(answer):
            return answer
        end = match.start()
    return None


def _has_broken_box(answer: str) -> bool:
    """True when the last box of an answer is empty or not closed."""
    _, box, content = answer.rpartition("\\boxed")
    return bool(box) and (
        content.count("{") != content.count("}") or content.lstrip()[:2] in ("{}", "")
    )
