"""Rows of a file -> external responses: token ids from ids or text, and a key for each row.

Token ids are taken unchanged. Text is tokenised with the pair's tokenizer, which adds no special
tokens to those that are written out in the text. A response that stopped by itself ends in EOS, so
EOS is appended to a text without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from engine.core import GIVEN, ExternalResponse, Task, Trajectory
from engine.errors import TaskError
from engine.models.prompt import render_prompts
from evaluators.external.columns import Cells, find_columns
from evaluators.tasks.sources.rows import Row

_NO_RESPONSE = "give token_ids (a list of whole numbers) or response (text)"
_NO_PROMPT = (
    "give prompt_token_ids, prompt (text as the model saw it, special tokens written out), or"
    " problem with --task"
)


class RowReader:
    """Reads the rows of one source in order: a row's key may depend on the rows before it.

    Args:
        tokenizer: The pair's tokenizer.
        stop_token_ids: Tokens that end a response; the first is appended where the tokenizer has
            no EOS.
        context_length: The pair's context length, in tokens.
        task: The task that the responses answer; None if the rows hold their prompts.
    """

    def __init__(
        self,
        tokenizer: Any,
        stop_token_ids: tuple[int, ...],
        context_length: int,
        task: Task | None,
    ) -> None:
        self._tokenizer, self._stop_token_ids, self._task = tokenizer, stop_token_ids, task
        self._context_length = context_length
        self._problem_ids = {problem.id for problem in task.problems} if task else set()
        self._num_samples: Counter[str] = Counter()
        self._id_of_prompt: dict[tuple[int, ...], str] = {}
        self._num_with_both = self._num_without_end = 0

    @property
    def notes(self) -> list[str]:
        """What the user should know about the rows, one line each."""
        notes = []
        if self._num_with_both:
            notes.append(f"{self._num_with_both:,} rows hold token ids and text: the ids are taken")
        if self._num_without_end:
            notes.append(
                f"{self._num_without_end:,} rows of text have no finish_reason and are taken as cut"
                " at a length cap, without EOS: give finish_reason stop for those that ended by"
                " themselves"
            )
        return notes

    @cached_property
    def _prompts(self) -> dict[str, list[int]]:
        """The token ids of the task's prompts, by problem id."""
        assert self._task is not None, "without a task there is no prompt to render"
        prompts = render_prompts(self._tokenizer, self._task)
        return {problem.id: ids for problem, ids in zip(self._task.problems, prompts, strict=True)}

    def read(self, rows: Sequence[Row]) -> Iterator[ExternalResponse]:
        """Read the rows of one table.

        Yields:
            The response of each row.

        Raises:
            TaskError: Two columns fit one role, or a row lacks a prompt, a response or a problem of
                the task; or a cell holds anything else than its role allows.
        """
        names = find_columns(rows)
        for row in rows:
            yield self._external_response(Cells(row, names))

    def _external_response(self, cells: Cells) -> ExternalResponse:
        problem = self._problem(cells)
        prompt = self._prompt(cells, problem)
        response, stopped = self._response(cells)
        if problem is None:
            new_id = f"p{len(self._id_of_prompt) + 1}"
            problem = self._id_of_prompt.setdefault(tuple(prompt), new_id)
        return ExternalResponse(self._key(cells, problem), prompt, response, stopped, cells.where)

    def _problem(self, cells: Cells) -> str | None:
        problem = cells.name("problem")
        if self._task is None or problem in self._problem_ids:
            return problem
        examples = ", ".join(map(repr, sorted(self._problem_ids)[:3]))
        fault = "names no problem" if problem is None else f"names the problem {problem!r}"
        raise TaskError(
            f"{cells.where} {fault}: those of the task {self._task.name!r} are called {examples},"
            " ..."
        )

    def _prompt(self, cells: Cells, problem: str | None) -> list[int]:
        prompt = cells.ids("prompt ids")
        if prompt is None and (text := cells.text("prompt")) is not None:
            prompt = self._encode(text, cells)
        if prompt is None and problem is not None and self._task is not None:
            prompt = self._prompts[problem]
        if not prompt:
            raise TaskError(
                f"{cells.where} has {'no' if prompt is None else 'an empty'} prompt: {_NO_PROMPT}"
            )
        return prompt

    def _response(self, cells: Cells) -> tuple[list[int], bool]:
        """The response's token ids, and whether it stopped by itself."""
        reason, ids, text = cells.finish_reason(), cells.ids("response ids"), cells.text("response")
        if text is not None:
            if ids is None:
                ids = self._encode_response(text, reason, cells)
            else:
                self._num_with_both += 1
        if not ids:
            raise TaskError(
                f"{cells.where} has {'no' if ids is None else 'an empty'} response: {_NO_RESPONSE}"
            )
        stopped = ids[-1] in self._stop_token_ids if reason is None else reason == "stop"
        return ids, stopped

    def _encode_response(self, text: str, reason: str | None, cells: Cells) -> list[int]:
        """The token ids of a response's text, with EOS appended if it stopped by itself."""
        ids = self._encode(text, cells)
        if not ids or ids[-1] in self._stop_token_ids:
            return ids
        if reason == "stop":
            return [*ids, self._eos]
        self._num_without_end += reason is None
        return ids

    def _key(self, cells: Cells, problem: str) -> Trajectory:
        sample = cells.number("sample")
        if sample is None:
            sample = self._num_samples[problem]
        self._num_samples[problem] += 1
        if not cells.has("direction", "budget"):
            return Trajectory(problem, sample, GIVEN, None)
        return Trajectory(problem, sample, cells.direction(), cells.number("budget"))

    @property
    def _eos(self) -> int:
        eos = self._tokenizer.eos_token_id
        return int(self._stop_token_ids[0] if eos is None else eos)

    @cached_property
    def _max_chars(self) -> int:
        """The longest text that can fit into the context: its tokens times the longest token.

        Longer text is not tokenised, as that may take all memory.
        """
        return self._context_length * max(map(len, self._tokenizer.get_vocab()))

    def _encode(self, text: str, cells: Cells) -> list[int]:
        if len(text) > self._max_chars:
            raise TaskError(
                f"{cells.where}: a text of {len(text):,} characters is more than a context of"
                f" {self._context_length} tokens can hold: give a pair with a longer context, or"
                " leave this row out"
            )
        return list(map(int, self._tokenizer(text, add_special_tokens=False)["input_ids"]))
