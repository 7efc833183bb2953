"""Problems in, prompt token ids out: the chat template of the RL model's tokenizer, for both
models.

The ids made here are the prompt everywhere: both engines get them and the records keep them. Text
is never encoded a second time.
"""

from __future__ import annotations

from typing import Any

from engine.core import Task
from engine.errors import ModelError
from engine.models.bounded import bounded

_CPU_S, _MEMORY_MIB = 5, 1024  # for all prompts; a tenth of a second more for each


def render_prompts(tokenizer: Any, task: Task) -> list[list[int]]:
    """The prompt of each problem of `task`, in order: one user turn, and the opening of the model's
    turn.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"--rl {tokenizer.name_or_path} has no chat template: "
            "put the chat_template.jinja that it was trained with into its folder"
        )
    turns = [task.user_turn(problem) for problem in task.problems]
    try:  # a template is a program, which may have no end
        prompts = bounded(
            lambda: [_render(tokenizer, turn) for turn in turns],
            _CPU_S + len(turns) // 10,
            _MEMORY_MIB,
        )
    except ValueError as error:
        raise ModelError(
            f"--rl {tokenizer.name_or_path} has a chat template that cannot be rendered:"
            f" {error!s:.300}"
        ) from error
    if not all(prompts):
        raise ModelError(
            f"--rl {tokenizer.name_or_path} has a chat template that renders a user turn to no"
            " tokens"
        )
    return list(prompts)


def _render(tokenizer: Any, user_turn: str) -> list[int]:
    messages = [{"role": "user", "content": user_turn}]
    # the template writes the special tokens, so this call adds none of its own
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return list(map(int, ids))


def token_texts(tokenizer: Any, vocab_size: int) -> list[str]:
    """What each token id below `vocab_size` is as text by itself, special tokens too."""
    ids = range(vocab_size)
    texts = tokenizer.batch_decode([[token] for token in ids], clean_up_tokenization_spaces=False)
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    return [_with_its_space(text, piece or "") for text, piece in zip(texts, pieces, strict=True)]


def _with_its_space(text: str, piece: str) -> str:
    """SentencePiece tokenizers leave out the space before the first token that they decode."""
    return (
        f" {text}"
        if piece.startswith("\N{LOWER ONE EIGHTH BLOCK}") and not text.startswith(" ")
        else text
    )
