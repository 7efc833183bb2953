"""A sample without its text: blocks of the same length; numbers, colours and lengths stay."""

from __future__ import annotations

from dataclasses import replace

from evaluators.inspector.sample import HIDDEN, Sample, Traced

REDACTED = "the task set is gated: text is redacted here; --show-text shows it"


def shown(sample: Sample, show_text: bool) -> Sample:
    """`sample` as it may be shown: redacted where its set is gated, unless its text is asked
    for.
    """
    return redacted(sample) if sample.gated and not show_text else sample


def redacted(sample: Sample) -> Sample:
    """Question, prompt, answers and texts as blocks."""
    return replace(
        sample,
        question=_blocks(sample.question),
        prompt=_blocks(sample.prompt) or "",
        answer=_blocks(sample.answer),
        trajectories=tuple(map(_without_answer, sample.trajectories)),
        texts={token: HIDDEN * len(text) for token, text in sample.texts.items()},
        notes=(REDACTED, *sample.notes),
        redacted=True,
    )


def _without_answer(traced: Traced) -> Traced:
    return replace(traced, answer=_blocks(traced.answer))


def _blocks(text: str | None) -> str | None:
    return text and HIDDEN * len(text)
