"""Rows of a file -> given responses: which column is which, ids or text, and what each row is
called.

Ids are taken as they are. Text is tokenised once, with the pair's tokenizer and no special tokens
but those that are written out in it; a response that has stopped by itself ends in EOS, so text
without one is given it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from engine.core import GIVEN, ExternalResponse, Task, Trajectory
from engine.errors import TaskError
from engine.models.prompt import render_prompts
from evaluators.external.cells import Cells, called
from evaluators.tasks.sources.rows import Row

_NO_RESPONSE = "give token_ids (a list of whole numbers) or response (text)"
_NO_PROMPT = (
    "give prompt_token_ids, prompt (text as the model saw it, special tokens written out), or"
    " problem with --task"
)


class RowReader:
    """Reads the rows of one source, in order: what a row is called may depend on those before
    it.
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
        self._known = {problem.id for problem in task.problems} if task else set()
        self._num_samples: Counter[str] = Counter()
        self._name_of: dict[tuple[int, ...], str] = {}
        self._num_with_both = self._num_without_end = 0

    @property
    def notes(self) -> list[str]:
        """What the user should know about what was read, a line each."""
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
    def _prompt_of(self) -> dict[str, list[int]]:
        assert self._task is not None, "without a task there is no prompt to render"
        prompts = render_prompts(self._tokenizer, self._task)
        return {problem.id: ids for problem, ids in zip(self._task.problems, prompts, strict=True)}

    def read(self, rows: Sequence[Row]) -> Iterator[ExternalResponse]:
        """The rows of one table. Raises TaskError, naming the row."""
        names = called(rows)
        for row in rows:
            yield self._given(Cells(row, names))

    def _given(self, cells: Cells) -> ExternalResponse:
        problem = self._problem(cells)
        prompt = self._prompt(cells, problem)
        response, stopped = self._response(cells)
        if problem is None:
            problem = self._name_of.setdefault(tuple(prompt), f"p{len(self._name_of) + 1}")
        return ExternalResponse(self._key(cells, problem), prompt, response, stopped, cells.where)

    def _problem(self, cells: Cells) -> str | None:
        problem = cells.name("problem")
        if self._task is None or problem in self._known:
            return problem
        few = ", ".join(map(repr, sorted(self._known)[:3]))
        what = "names no problem" if problem is None else f"names the problem {problem!r}"
        raise TaskError(
            f"{cells.where} {what}: those of the task {self._task.name!r} are called {few}, ..."
        )

    def _prompt(self, cells: Cells, problem: str | None) -> list[int]:
        prompt = cells.ids("prompt ids")
        if prompt is None and (text := cells.text("prompt")) is not None:
            prompt = self._encoded(text, cells)
        if prompt is None and problem is not None and self._task is not None:
            prompt = self._prompt_of[problem]
        if not prompt:
            raise TaskError(
                f"{cells.where} has {'no' if prompt is None else 'an empty'} prompt: {_NO_PROMPT}"
            )
        return prompt

    def _response(self, cells: Cells) -> tuple[list[int], bool]:
        """The response's ids, and whether it has stopped by itself."""
        reason, ids, text = cells.finish_reason(), cells.ids("response ids"), cells.text("response")
        if ids is None and text is not None:
            ids = self._encoded(text, cells)
            if ids and reason == "stop" and ids[-1] not in self._stop_token_ids:
                ids = [*ids, self._eos]
            self._num_without_end += (
                bool(ids) and reason is None and ids[-1] not in self._stop_token_ids
            )
        elif text is not None:
            self._num_with_both += 1
        if not ids:
            raise TaskError(
                f"{cells.where} has {'no' if ids is None else 'an empty'} response: {_NO_RESPONSE}"
            )
        return ids, ids[-1] in self._stop_token_ids if reason is None else reason == "stop"

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
    def _most_characters(self) -> int:
        """Longer text cannot fit into the context, however well it is tokenised; trying may take
        all memory.
        """
        return self._context_length * max(map(len, self._tokenizer.get_vocab()))

    def _encoded(self, text: str, cells: Cells) -> list[int]:
        if len(text) > self._most_characters:
            raise TaskError(
                f"{cells.where}: a text of {len(text):,} characters is more than a context of"
                f" {self._context_length} tokens can hold: give a pair with a longer context, or"
                " leave this row out"
            )
        return list(map(int, self._tokenizer(text, add_special_tokens=False)["input_ids"]))
