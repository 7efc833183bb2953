"""CrossSampler as a vLLM logits processor, with a thin adapter for each of vLLM's model runners.

An adapter only says which sequence each row of the batch is, how many tokens the engine has
generated for it and which was the last. Everything else is in `sampler`. A request carries
{"sequence": index in the phase, "num_prompt": tokens of its prompt} in its extra_args. The worker
makes and reaches the sampler of every tensor-parallel rank by the calls of `SamplerCalls`; vLLM's
own configuration carries none of its settings, since vLLM compiles anew for each that it does.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch
from vllm.config import VllmConfig
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    UnquantizedEmbeddingMethod,
)
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from engine.arrays import Ints
from engine.errors import EngineError, LockstepError
from engine.lockstep.prefill_hook import hook
from engine.lockstep.weights import digest_of_model, digest_of_tensors
from engine.sampling.link import Address, Listener, connect
from engine.sampling.prefill import NO_TARGETS, PrefillMeasurer, Targets
from engine.sampling.sampler import CrossSampler, Phase, Progress, SamplerConfig

try:
    from vllm.v1.worker.gpu.sample.logits_processor import (
        LogitsContext,
        LogitsProcRequestState,
    )
    from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor as LogitsProcessorV2
except ImportError:  # releases before model runner V2 took custom processors
    LogitsProcessorV2 = object

# A process has one engine, so one adapter and one sampler. vLLM makes the adapter itself; a worker
# extension of both model runners has no other way to know of it.
_model_runner: str | None = None
_sampler: CrossSampler | None = None
# Whether a fingerprint of the weights is being taken, and the logits of its prompt.
_probing, _probed = False, ""
_measurer: PrefillMeasurer | None = None


class CrossSamplingV1(LogitsProcessor):
    """The adapter for model runner V1.

    vLLM reports how its batch changed and shares the live lists of output tokens.
    """

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        _note_model_runner("V1")
        # Row of the batch -> its sequence and the output tokens of that.
        self._rows: dict[int, tuple[int, list[int]]] = {}
        self._sequence: Ints = np.empty(0, np.int64)
        self._outputs: list[list[int]] = []

    def is_argmax_invariant(self) -> bool:
        """Greedy sampling takes another token with this processor, so vLLM must not skip it."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow a change of vLLM's batch; None is no change."""
        if batch_update is None:
            return
        rows = self._rows
        for index in batch_update.removed:
            rows.pop(index, None)
        for index, params, _, output in batch_update.added:
            rows[index] = ((params.extra_args or {}).get("sequence", -1), output)
        for source, target, direction in batch_update.moved:
            source_row, target_row = rows.pop(source, None), rows.pop(target, None)
            if source_row is not None:
                rows[target] = source_row
            if direction == MoveDirectionality.SWAP and target_row is not None:
                rows[source] = target_row
        ordered = [rows[index] for index in sorted(rows)]
        self._sequence = np.array([sequence for sequence, _ in ordered], np.int64)
        self._outputs = [output for _, output in ordered]

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Force the decided tokens in the logits [B, V] of a step.

        Raises:
            LockstepError: The batch of vLLM is not the one that it has reported.
        """
        if not len(self._sequence) or self._sequence.min() < 0:
            return _outside_of_phases(logits)
        if len(self._sequence) != len(logits):
            raise LockstepError(
                f"vLLM samples {len(logits)} rows, its batch has {len(self._sequence)} sequences"
            )
        emitted = np.fromiter(map(len, self._outputs), np.int64, len(self._outputs))
        previous = np.array([output[-1] if output else -1 for output in self._outputs], np.int64)
        return _the_sampler().step(logits, self._sequence, emitted, previous)


class CrossSamplingV2(LogitsProcessorV2):
    """The adapter for model runner V2.

    Requests live in slots, and a batch comes as a context on the device.
    """

    def __init__(self, vllm_config: VllmConfig, req_states: LogitsProcRequestState) -> None:
        _note_model_runner("V2")
        self._sequence = np.full(req_states.max_num_reqs, -1, np.int64)
        self._num_prompt = np.zeros(req_states.max_num_reqs, np.int64)
        self._prefill_len = req_states.prefill_len

    def add_request(self, req_idx: int, sampling_params: SamplingParams) -> bool:
        """Note the request of a slot.

        Returns:
            Whether it belongs to a phase, so that its rows come to `apply`.
        """
        extra = sampling_params.extra_args or {}
        self._sequence[req_idx] = extra.get("sequence", -1)
        self._num_prompt[req_idx] = extra.get("num_prompt", 0)
        return "sequence" in extra

    def apply(self, logits: torch.Tensor, ctx: LogitsContext) -> torch.Tensor:
        """Force the decided tokens in the logits [B, V] of a step."""
        slots = ctx.idx_mapping_np[: len(logits)]
        sequence = self._sequence[slots]
        if sequence.min() < 0:
            return _outside_of_phases(logits)
        seen = ctx.seq_lens_upper_bound_np[: len(logits)].astype(np.int64)
        # vLLM throws a row away until its prompt, or after a preemption its prefix, is complete.
        emitted = np.where(seen < self._prefill_len.np[slots], -1, seen - self._num_prompt[slots])
        return _the_sampler().step(logits, sequence, emitted, ctx.input_ids[: len(logits)])


def processor_for(vllm_config: VllmConfig) -> str:
    """The adapter for the model runner that vLLM has chosen, as "module:Class".

    Releases whose runner V2 takes no custom processors fall back to V1 when they get one.
    """
    takes_v2 = LogitsProcessorV2 is not object and getattr(
        vllm_config, "use_v2_model_runner", False
    )
    return f"{__name__}:CrossSampling{'V2' if takes_v2 else 'V1'}"


class SamplerCalls:
    """The calls of `PolicyWorker` in every rank.

    The class is mixed into vLLM's worker (worker_extension_cls).
    """

    def xsample_configure(self, config: SamplerConfig) -> str:
        """Make this rank's sampler, or one with other settings in its place.

        Returns:
            The model runner that calls it: "V1" or "V2".

        Raises:
            EngineError: The model runner has taken no logits processor.
        """
        global _sampler
        if _model_runner is None:
            raise EngineError(
                "vLLM's model runner has not taken xsample's logits processor: with"
                " VLLM_USE_V2_MODEL_RUNNER=1 that needs vLLM 0.31 or newer; unset it"
            )
        link = _sampler.link if _sampler else None
        _sampler = CrossSampler(config, keeps_trace=get_tensor_model_parallel_rank() == 0)
        _sampler.link = link
        return _model_runner

    def xsample_open(self, kind: str, host: str, timeout: float) -> Address:
        """Listen for the other engine's rank of the same number."""
        self._xsample_listener = Listener(kind, host, timeout)
        return self._xsample_listener.address

    def xsample_accept(self) -> None:
        """Wait for that rank."""
        _the_sampler().link = self._xsample_listener.accept()

    def xsample_connect(self, addresses: list[Address], timeout: float) -> None:
        """Connect to the other engine's rank of the same number."""
        _the_sampler().link = connect(addresses[get_tensor_model_parallel_rank()], timeout)

    def xsample_begin(self, phase: Phase) -> None:
        """Begin a phase."""
        if _measurer:
            _measurer.begin(NO_TARGETS)
        _the_sampler().begin(phase)

    def xsample_load(self, model: str) -> None:
        """Load the weights of a model of the same architecture in the place of those here.

        Args:
            model: Its folder or hub id.
        """
        worker = cast(Any, self)
        worker.reload_weights(weights_path=model)
        for layer in worker.get_model().modules():
            # On the CPU the product with an output head uses a packed copy of its weights. Where
            # the head is the embedding, vLLM loads the one and forgets the copy of the other.
            method = getattr(layer, "quant_method", None)
            if isinstance(layer, ParallelLMHead) and isinstance(method, UnquantizedEmbeddingMethod):
                method.process_weights_after_loading(layer)

    def xsample_probe(self) -> None:
        """Take the logits of the next request, which belongs to no phase, into a fingerprint."""
        global _probing, _probed
        _probing, _probed = True, ""

    def xsample_weights(self) -> str:
        """The fingerprint of the weights that this rank holds and computes with.

        Raises:
            EngineError: The request of `xsample_probe` did not come to the logits processor.
        """
        global _probing
        _probing = False
        if not _probed:
            raise EngineError("vLLM has computed no logits for the prompt that shows its weights")
        model: torch.nn.Module = cast(Any, self).get_model()
        return f"{digest_of_model(model)}-{_probed}"

    def xsample_begin_measuring(self, targets: Targets) -> None:
        """Begin a phase that only measures."""
        global _measurer
        sampler, runner = _the_sampler(), cast(Any, self).model_runner
        keeps = sampler.trace is not None
        _measurer = PrefillMeasurer(sampler.config, runner.max_num_reqs, keeps)
        _measurer.begin(targets)
        hook(runner, str(_model_runner), _measurer)

    def xsample_measured(self, sequence: Ints) -> pa.Table | None:
        """Take out the rows of sequences that have ended; None from ranks other than 0."""
        assert _measurer, "the worker has not called xsample_begin_measuring"
        return _measurer.take(sequence) if _the_sampler().trace else None

    def xsample_decided(self) -> Progress:
        """How far this rank has come since the last call."""
        return _the_sampler().take_progress()

    def xsample_collect(
        self,
        sequence: Ints,
        emitted: Ints,
        last: Ints,
    ) -> pa.RecordBatch | None:
        """Settle sequences that have ended.

        Returns:
            Their rows, from rank 0; None from the others.
        """
        sampler = _the_sampler()
        sampler.end(sequence, emitted, last)
        return sampler.trace.collect(sequence) if sampler.trace else None


def _outside_of_phases(logits: torch.Tensor) -> torch.Tensor:
    """The logits of vLLM's own warm-up, or of the prompt that shows an engine's weights."""
    global _probed
    if _probing:
        _probed = digest_of_tensors([(_probed, logits)])  # of all steps, one after the other
    return logits


def _note_model_runner(name: str) -> None:
    global _model_runner
    _model_runner = name


def _the_sampler() -> CrossSampler:
    assert _sampler, "the worker has not called xsample_configure"
    return _sampler
