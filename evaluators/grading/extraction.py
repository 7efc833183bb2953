r"""From a response to the answer that it commits to. Pure functions on text, linear in its length.

In this order: only what follows the last `</think>`, if there is one; the last balanced, non-empty
`\boxed{}` (of nested ones the innermost); the last line `Answer: ...`. Nothing else is an answer:
"the last number" or "the answer is clearly D" is a guess, and kept apart. Thoughts that are opened
and never closed are not cut off: many templates open them in the prompt, where the response does
not show it, and one text must not get two answers. Whether an answer is right is not asked here.
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
    """What was found: an answer, or a guess, or nothing.

    method: "boxed" or "answer_line" for an answer; "sentence", "last_number" or "last_letter" for a
    guess
    """

    answer: str | None = None
    guess: str | None = None
    method: str | None = None


def extract(text: str, guess_kind: GuessKind = "number") -> Extraction:
    """The answer of a response; without one, what a lenient reader would take for one."""
    text = after_thinking(text)
    for method, find in (("boxed", last_boxed), ("answer_line", last_answer_line)):
        answer = find(text)
        if answer is not None:
            return Extraction(answer, None, method)
    return Extraction(None, *guess(text, guess_kind))


def after_thinking(text: str) -> str:
    """What follows the last `</think>`; all of the text when there is none."""
    return text.rpartition(_THINK_END)[2]


def last_boxed(text: str) -> str | None:
    r"""Content of the last balanced, non-empty `\boxed{}`, stripped; an unclosed box is none."""
    last_start, content = -1, None
    opened: list[
        int
    ] = []  # where the content of each open brace starts; -1 for a brace that is no box
    for match in _BRACES.finditer(text):
        token = match.group()
        if "boxed" in token:
            opened.append(match.end())
        elif token == "{":
            opened.append(-1)
        elif token == "}" and opened:
            start = opened.pop()
            inside = text[start : match.start()].strip() if start > last_start else ""
            if inside.strip("$ "):
                last_start, content = start, inside
    return content


def last_answer_line(text: str) -> str | None:
    """What stands behind the colon of the last `Answer:` line that says something, without markup
    around it.
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
    """Its box is empty, or was cut off: what stands in it is not all of the answer."""
    _, box, content = answer.rpartition("\\boxed")
    return bool(box) and (
        content.count("{") != content.count("}") or content.lstrip()[:2] in ("{}", "")
    )
