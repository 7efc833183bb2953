"""Prompts as token ids, by the chat template of the RL model's tokenizer for both models.

The ids made here are the prompt everywhere: both engines get them and the tables keep them. Text is
never encoded a second time. Also checks that prompts and external responses fit into the models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.core import ExternalResponses, Task
from engine.errors import ConfigError, ModelError
from engine.models.bounded import call_bounded

# For rendering all prompts; each prompt adds a tenth of a second.
_CPU_S, _MEMORY_MIB = 5, 1024


def render_prompts(tokenizer: Any, task: Task) -> list[list[int]]:
    """Render the prompt of each problem: one user turn, and the opening of the model's turn.

    Args:
        tokenizer: That of the RL model.
        task: The problems.

    Returns:
        Token ids, in the order of the problems.

    Raises:
        ModelError: The tokenizer has no chat template, or one that cannot be rendered.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            f"--rl {tokenizer.name_or_path} has no chat template: "
            "put the chat_template.jinja that it was trained with into its folder"
        )
    turns = [task.user_turn(problem) for problem in task.problems]
    try:  # a template is a program, which may never end
        prompts = call_bounded(
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
    # The template writes all special tokens; this call adds none.
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return list(map(int, ids))


def token_texts(tokenizer: Any, vocab_size: int) -> list[str]:
    """The text of each token id below `vocab_size` by itself, special tokens included."""
    ids = range(vocab_size)
    texts = tokenizer.batch_decode([[token] for token in ids], clean_up_tokenization_spaces=False)
    pieces = tokenizer.convert_ids_to_tokens(list(ids))
    return [_restore_space(text, piece or "") for text, piece in zip(texts, pieces, strict=True)]


def _restore_space(text: str, piece: str) -> str:
    """The text of a token with its leading space, which SentencePiece drops from a first token."""
    has_space = piece.startswith("\N{LOWER ONE EIGHTH BLOCK}")
    return f" {text}" if has_space and not text.startswith(" ") else text


def check_prompts(
    prompts: Mapping[str, Sequence[int]],
    max_tokens: int,
    max_model_len: int | None,
    context_length: int,
    vocab_size: int,
) -> int:
    """Check that each prompt and its response fit into the models.

    Args:
        prompts: Token ids by problem id.
        max_tokens: Tokens of a response, at most.
        max_model_len: The setting.
        context_length: Context of the pair, in tokens.
        vocab_size: Ids that both models have are below it.

    Returns:
        The max_model_len to use: the setting, or what the longest prompt and response need.

    Raises:
        ConfigError: A prompt and its response are too long.
        ModelError: A prompt has a token id that the models do not have.
    """
    _refuse_beyond_context(max_model_len, context_length)
    limit = max_model_len or context_length
    limited_by = f"the pair's context of {limit} tokens"
    if max_model_len:
        limited_by = f"max_model_len {limit}"
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
    """Check that each external response and its prompt fit into the models.

    Args:
        external: The responses.
        max_model_len: The setting.
        context_length: Context of the pair, in tokens.
        vocab_size: Ids that both models have are below it.

    Returns:
        The max_model_len to use: the setting, or what the longest response needs.

    Raises:
        ConfigError: A response and its prompt are too long.
        ModelError: They have a token id that the models do not have.
    """
    _refuse_beyond_context(max_model_len, context_length)
    limit = max_model_len or context_length
    for response in external.responses:
        ids = response.prompt + response.response
        if max(ids) >= vocab_size:
            raise ModelError(
                f"{response.where}: it holds token id {max(ids)}, the models end at"
                f" {vocab_size - 1}: give the pair whose tokenizer made it, or its text"
            )
        if len(ids) > limit:
            raise ConfigError(
                f"{response.where}: prompt and response have {len(response.prompt)} and"
                f" {len(response.response)} tokens, more than the context of {limit}: give a pair"
                " with a longer context, or leave this response out"
            )
    return max_model_len or max(
        len(response.prompt) + len(response.response) for response in external.responses
    )
