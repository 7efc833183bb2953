"""Where vLLM's model runners show the hidden states of a step, with a thin hook for each of them.

Both runners have a function for log-probabilities of prompts, which they call at every step with
the hidden states. The hook stands in its place, and says in a measuring phase which text each
request is and which of its tokens the step has computed. Nothing is asked of vLLM itself.
A request of a measuring phase carries {"text": index in the phase} in its extra_args.

Dimensions: B requests of a step.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from engine.arrays import Ints
from engine.sampling.prefill import Computed, PrefillMeasurer


def hook(runner: Any, model_runner: str, measurer: PrefillMeasurer) -> None:
    """Show all later steps of a model runner to a measurer.

    Args:
        runner: vLLM's model runner.
        model_runner: Which one it is: "V1" or "V2".
        measurer: What measures the texts; it gets no steps while it is idle.
    """
    if model_runner == "V1":
        runner._get_prompt_logprobs_dict = _HookV1(runner, measurer)
    else:
        runner.prompt_logprobs_worker = _HookV2(runner, measurer)


class _HookV1:
    """The hook of model runner V1, a function of it."""

    def __init__(self, runner: Any, measurer: PrefillMeasurer) -> None:
        self._runner, self._measurer = runner, measurer

    def __call__(self, hidden: torch.Tensor, num_scheduled: dict[str, int]) -> dict[str, None]:
        if self._measurer.is_idle:
            return {}
        runner = self._runner
        requests = [(name, runner.requests[name]) for name in num_scheduled]
        place = [runner.input_batch.req_id_to_index[name] for name, _ in requests]
        computed = Computed(
            np.array([_text(request.sampling_params) for _, request in requests], np.int64),
            np.array([request.num_computed_tokens for _, request in requests], np.int64),
            np.array(list(num_scheduled.values()), np.int64),
            runner.query_start_loc.np[place].astype(np.int64),
        )
        self._measurer.step(computed, hidden, runner.model.compute_logits)
        return {}


class _HookV2:
    """The hook of model runner V2, in the place of an object of it."""

    def __init__(self, runner: Any, measurer: PrefillMeasurer) -> None:
        self._measurer = measurer
        self._text: Ints = np.full(runner.max_num_reqs, -1, np.int64)

    def add_request(self, req_id: str, req_idx: int, sampling_params: Any) -> None:
        """Note the text of a slot."""
        self._text[req_idx] = _text(sampling_params)

    def remove_request(self, req_id: str) -> None:
        """A slot is free; the next request says what its text is."""

    def compute_prompt_logprobs(
        self, compute_logits: Any, hidden: torch.Tensor, batch: Any, *rest: Any
    ) -> dict[str, None]:
        """Measure a step."""
        if self._measurer.is_idle:
            return {}
        text = self._text[batch.idx_mapping_np]
        computed = Computed(
            text,
            batch.num_computed_prefill_tokens_np.astype(np.int64),
            batch.num_scheduled_tokens.astype(np.int64),
            batch.query_start_loc_np[: len(text)].astype(np.int64),
        )
        self._measurer.step(computed, hidden, compute_logits)
        return {}

    def compute_prompt_token_id_logprobs(self, *rest: Any) -> dict[str, None]:
        """Newer releases ask for these, too."""
        return {}


def _text(params: Any) -> int:
    """Index of a request's text; -1 where it is none of a measuring phase."""
    return int(((params and params.extra_args) or {}).get("text", -1))
