"""Redaction of a sample: its texts become blocks of the same length.

Numbers, colours and lengths stay.
"""

from __future__ import annotations

from dataclasses import replace

from evaluators.inspector.sample import HIDDEN, Sample, Traced

REDACTED = "the task set is gated: text is redacted here; --show-text shows it"


def redact_if_gated(sample: Sample, show_text: bool) -> Sample:
    """The sample as it may be shown.

    Args:
        sample: The sample.
        show_text: Leave the text even if the set is gated.

    Returns:
        The sample, redacted if its set is gated.
    """
    return redact(sample) if sample.gated and not show_text else sample


def redact(sample: Sample) -> Sample:
    """Replace question, prompt, answers and token texts by blocks."""
    return replace(
        sample,
        question=_blocks(sample.question),
        prompt=_blocks(sample.prompt) or "",
        answer=_blocks(sample.answer),
        trajectories=tuple(map(_redact_answer, sample.trajectories)),
        texts={token: HIDDEN * len(text) for token, text in sample.texts.items()},
        notes=(REDACTED, *sample.notes),
        redacted=True,
    )


def _redact_answer(traced: Traced) -> Traced:
    return replace(traced, answer=_blocks(traced.answer))


def _blocks(text: str | None) -> str | None:
    return text and HIDDEN * len(text)
