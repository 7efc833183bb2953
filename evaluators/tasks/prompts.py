r"""The prompts around a question: four by name, or a template file of the user's own.

A prompt is part of the measurement, so published prompts are quoted to the letter:

    plain   the question alone
    boxed   the sentence that the model cards of Qwen and DeepSeek recommend for mathematics
    dapo    the prompt of DAPO's training and AIME data (BytedTsinghua-SIA/AIME-2024)
    gpqa    the multiple-choice prompt of OpenAI's simple-evals; the question holds the options
"""

from __future__ import annotations

from pathlib import Path

from engine.config.run_config import PromptName
from engine.errors import ConfigError

PLACEHOLDER = "{question}"
MAX_TEMPLATE_BYTES = 1 << 20

PROMPTS: dict[PromptName, str] = {
    "plain": "{question}",
    "boxed": "{question}\nPlease reason step by step, and put your final answer within \\boxed{}.",
    "dapo": (
        "Solve the following math problem step by step. The last line of your response should be of"
        " the form Answer: $Answer (without quotes) where $Answer is the answer to the"
        ' problem.\n\n{question}\n\nRemember to put your answer on its own line after "Answer:".'
    ),
    "gpqa": (
        "Answer the following multiple choice question. The last line of your response should be of"
        " the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of ABCD."
        " Think step by step before answering.\n\n{question}"
    ),
}


def strip_prompt(text: str) -> str:
    """Remove one of PROMPTS around a question, since some data sets bring their prompt along."""
    for prompt in PROMPTS.values():
        before, after = (part.strip() for part in prompt.split(PLACEHOLDER))
        has_prompt = bool(before or after) and text.startswith(before) and text.endswith(after)
        if has_prompt and len(text) > len(before + after):
            return text[len(before) : len(text) - len(after)].strip()
    return text


def read_template(path: Path) -> str:
    """Read a user turn from a UTF-8 file that holds `{question}` once.

    Returns:
        The text without a byte order mark and without one final newline.

    Raises:
        ConfigError: The file cannot be read, or does not hold `{question}` exactly once.
    """
    try:
        with path.expanduser().open("rb") as file:
            content = file.read(MAX_TEMPLATE_BYTES + 1)
        text = content.decode("utf-8-sig").replace("\r\n", "\n").removesuffix("\n")
    except UnicodeDecodeError:
        raise ConfigError(f"prompt_template {path} is not UTF-8 text") from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"prompt_template {path} cannot be read: {reason}") from None
    if len(content) > MAX_TEMPLATE_BYTES:
        raise ConfigError(
            f"prompt_template {path} is longer than {MAX_TEMPLATE_BYTES:,} bytes: no prompt is"
        )
    if (count := text.count(PLACEHOLDER)) != 1:
        raise ConfigError(
            f"prompt_template {path} holds {PLACEHOLDER} {count} times: it must stand there once"
        )
    return text
