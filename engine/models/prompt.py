"""Problems in, prompt token ids out: the chat template of the RL model's tokenizer, for both
models.

The ids made here are the prompt everywhere: both engines get them and the records keep them. Text
is never encoded a second time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core import ExternalResponses, Task
from engine.errors import ConfigError, ModelError
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


def check_prompts(
    prompts: Mapping[str, Sequence[int]],
    max_tokens: int,
    max_model_len: int | None,
    context_length: int,
    vocab_size: int,
) -> int:
    """The max_model_len to use, after checking that each prompt (by problem id) and its response
    fit. In tokens.
    """
    _refuse_beyond_context(max_model_len, context_length)
    limit = max_model_len or context_length
    limited_by = (
        f"max_model_len {limit}" if max_model_len else f"the pair's context of {limit} tokens"
    )
    for problem, ids in prompts.items():
        if max(ids) >= vocab_size:
            raise ModelError(
                f"problem {problem!r}: its prompt holds token id {max(ids)}, the models end at"
                f" {vocab_size - 1}"
            )
    problem, longest = max(
        ((name, len(ids)) for name, ids in prompts.items()), key=lambda item: item[1]
    )
    if longest >= limit:
        raise ConfigError(
            f"problem {problem!r}: its prompt has {longest} tokens, {limited_by} leaves no room for"
            " a response: give a pair with a longer context, or leave this problem out"
        )
    if longest + max_tokens > limit:
        raise ConfigError(
            f"max_tokens {max_tokens} does not fit: the prompt of problem {problem!r} has {longest}"
            f" tokens and {limited_by} holds both; give --max-tokens {limit - longest} or less"
        )
    return max_model_len or longest + max_tokens


def _refuse_beyond_context(max_model_len: int | None, context_length: int) -> None:
    if max_model_len is not None and max_model_len > context_length:
        raise ConfigError(
            f"max_model_len {max_model_len} is more than the pair's context of {context_length}:"
            " give at most that"
        )


def check_external(
    external: ExternalResponses, max_model_len: int | None, context_length: int, vocab_size: int
) -> int:
    """The max_model_len to use, after checking that each response and its prompt fit and hold ids
    of the models.
    """
    _refuse_beyond_context(max_model_len, context_length)
    limit = max_model_len or context_length
    for one in external.responses:
        ids = one.prompt + one.response
        if max(ids) >= vocab_size:
            raise ModelError(
                f"{one.where}: it holds token id {max(ids)}, the models end at {vocab_size - 1}: "
                "give the pair whose tokenizer made it, or its text"
            )
        if len(ids) > limit:
            raise ConfigError(
                f"{one.where}: prompt and response have {len(one.prompt)} and {len(one.response)}"
                f" tokens, more than the context of {limit}: give a pair with a longer context, or"
                " leave this response out"
            )
    return max_model_len or max(len(one.prompt) + len(one.response) for one in external.responses)
