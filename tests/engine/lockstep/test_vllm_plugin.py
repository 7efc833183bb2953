"""Both adapters turn vLLM's own batch descriptions into the same rows, and a batch that is not ours
stays untouched.

V1's batches come from vLLM's BatchUpdateBuilder, as its input batch fills it in; V2's from real
LogitsContext objects.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec, module_from_spec
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineError, LockstepError
from engine.sampling.distribution import Sampling
from engine.sampling.link import Listener, connect
from engine.sampling.noise import stream_key
from engine.sampling.rule import Rule
from engine.sampling.sampler import CrossSampler, Phase, SamplerConfig

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # vLLM and what it imports are not ours to mend
    from vllm import SamplingParams
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import (
        destroy_distributed_environment,
        destroy_model_parallel,
        init_distributed_environment,
        initialize_model_parallel,
    )
    from vllm.v1.sample.logits_processor import BatchUpdateBuilder, MoveDirectionality

    from engine.lockstep import vllm_plugin
    from engine.lockstep.vllm_plugin import (
        CrossSamplingV1,
        CrossSamplingV2,
        SamplerCalls,
        processor_for,
    )

v2 = pytest.importorskip(
    "vllm.v1.worker.gpu.sample.logits_processor", reason="this vLLM has no model runner V2"
)

VOCAB, STOP, SLOTS = 32, 0, 6
NUM_PROMPT = 4
CONFIG = SamplerConfig("base", VOCAB, Sampling(1.0, 0.9), 0.1, 3)
SOLO = Phase(
    paired=False,
    rule=Rule(),
    key=np.array([stream_key(0, "p", n) for n in range(200)], np.uint64),
    forward=np.ones(200, np.bool_),
    budget=np.zeros(200, np.int64),
    offset=np.zeros(200, np.int64),
    stop_token=STOP,
)


@pytest.fixture(scope="module", autouse=True)
def samplers() -> Iterator[list[CrossSampler]]:
    """The samplers that adapters have made, the newest last."""
    made: list[CrossSampler] = []

    class Noted(CrossSampler):
        def __init__(self, config: SamplerConfig, keeps_trace: bool = True) -> None:
            super().__init__(config, keeps_trace)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_plugin, "CrossSampler", Noted)
        yield made


@pytest.fixture(scope="module", autouse=True)
def vllm_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmConfig]:
    """A real configuration, and the tensor-parallel group of one rank that a worker would have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = VllmConfig()
        store = tmp_path_factory.mktemp("distributed") / "store"
        with set_current_vllm_config(config):
            init_distributed_environment(1, 0, f"file://{store}", 0, "gloo")
            initialize_model_parallel(1)
        yield config
        destroy_model_parallel()
        destroy_distributed_environment()


def params(sequence: int | None) -> SamplingParams:
    extra = None if sequence is None else {"sequence": sequence, "num_prompt": NUM_PROMPT}
    return SamplingParams(temperature=0.0, extra_args=extra)


def logits_of(sequence: int, emitted: int) -> torch.Tensor:
    rng = np.random.default_rng((sequence, emitted))
    return torch.from_numpy(2 * rng.standard_normal(VOCAB)).float()


@pytest.fixture
def v1(vllm_config: VllmConfig) -> CrossSamplingV1:
    return make_v1(vllm_config)


def begin_solo() -> None:
    """A new sampler in a phase of many sequences."""
    SamplerCalls().xsample_configure(CONFIG)
    SamplerCalls().xsample_begin(SOLO)


def make_v1(config: VllmConfig) -> CrossSamplingV1:
    made = CrossSamplingV1(config, torch.device("cpu"), False)
    begin_solo()
    return made


def make_v2(config: VllmConfig) -> SlotBatch:
    """An adapter, and the batch that it follows."""
    nothing: Any = None  # the adapter keeps its own books of what these buffers hold
    # as of vLLM's buffer, what the host sees
    prefill_len: Any = SimpleNamespace(np=np.zeros(SLOTS, np.int32))
    states = v2.LogitsProcRequestState(
        torch.device("cpu"), SLOTS, VOCAB, nothing, nothing, prefill_len, nothing
    )
    made = CrossSamplingV2(config, states)
    begin_solo()
    return SlotBatch(made, prefill_len.np)


Recorded = Callable[[], list[tuple[int, int, int]]]


@pytest.fixture
def recorded(samplers: list[CrossSampler]) -> Recorded:
    """(sequence, position, token) of everything that the newest adapter's sampler has decided."""

    def read() -> list[tuple[int, int, int]]:
        trace = samplers[-1].trace
        assert trace
        batch = trace.collect(np.arange(200))
        columns = (batch.column(name).to_pylist() for name in ("sequence", "position", "token"))
        return list(zip(*columns, strict=True))

    return read


@dataclass
class Batch:
    """V1's persistent batch, as simply as it can be said: a list of rows, and vLLM's own notes of
    how it changed.
    """

    rows: list[tuple[int, list[int]] | None] = field(
        default_factory=list
    )  # (sequence, its live output tokens)
    builder: BatchUpdateBuilder = field(default_factory=BatchUpdateBuilder)
    num_ever: int = 0

    def change(self, leave: Sequence[int], num_new: int, swaps: Sequence[tuple[int, int]]) -> None:
        """Requests leave, new ones take the lowest gaps, the last rows move into what gaps remain,
        rows swap.
        """
        for index in {i % len(self.rows) for i in leave} if self.rows else ():
            self.builder.removed_append(index)
            self.rows[index] = None
        for _ in range(min(num_new, SLOTS - sum(row is not None for row in self.rows))):
            index = self.builder.pop_removed()
            if index is None:
                index = len(self.rows)
                self.rows.append(None)
            output: list[int] = []
            self.rows[index] = (self.num_ever, output)
            self.builder.added.append((index, params(self.num_ever), [1] * NUM_PROMPT, output))
            self.num_ever += 1
        self.condense()
        for a, b in swaps:
            if a < len(self.rows) and b < len(self.rows) and a != b:
                self.rows[a], self.rows[b] = self.rows[b], self.rows[a]
                self.builder.moved.append((a, b, MoveDirectionality.SWAP))

    def condense(self) -> None:
        while None in self.rows:
            if self.rows[-1] is None:
                self.rows.pop()
                continue
            empty = self.builder.pop_removed()
            assert empty == self.rows.index(None)
            self.builder.moved.append(
                (len(self.rows) - 1, empty, MoveDirectionality.UNIDIRECTIONAL)
            )
            self.rows[empty] = self.rows.pop()

    def step(self, adapter: CrossSamplingV1) -> list[tuple[int, int, int]]:
        """One step of the engine: (sequence, position, token) of each row."""
        adapter.update_state(self.builder.get_and_reset(len(self.rows)))
        rows = [row for row in self.rows if row is not None]
        if not rows:
            return []
        forced = (
            adapter.apply(torch.stack([logits_of(n, len(output)) for n, output in rows]))
            .argmax(-1)
            .tolist()
        )
        made = []
        for (sequence, output), token in zip(rows, forced, strict=True):
            made.append((sequence, len(output), token))
            output.append(token)
        return made


def alone(sequence: int, length: int) -> list[int]:
    """The tokens of a sequence that a sampler carries by itself."""
    sampler = CrossSampler(CONFIG)
    sampler.begin(SOLO)
    tokens: list[int] = []
    for position in range(length):
        previous = np.array(tokens[-1:] or [-1])
        forced = sampler.step(
            logits_of(sequence, position)[None],
            np.array([sequence]),
            np.array([position]),
            previous,
        )
        tokens.append(int(forced.argmax()))
    return tokens


changes = st.lists(
    st.tuples(
        st.lists(st.integers(0, SLOTS - 1), max_size=4),
        st.integers(0, 4),
        st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(0, SLOTS - 1)), max_size=2),
    ),
    min_size=1,
    max_size=12,
)


def test_v1_follows_its_batch_through_every_change(
    vllm_config: VllmConfig, recorded: Recorded
) -> None:
    @settings(max_examples=60, deadline=None)
    @given(changes)
    def follows(changes: list[Any]) -> None:
        adapter, batch = make_v1(vllm_config), Batch()
        made: dict[int, list[int]] = {}
        for leave, num_new, swaps in changes:
            batch.change(leave, num_new, swaps)
            for sequence, position, token in batch.step(adapter):
                assert position == len(made.setdefault(sequence, []))
                made[sequence].append(token)
        for sequence, tokens in made.items():
            assert tokens == alone(sequence, len(tokens))
        assert recorded() == [
            (n, i, token) for n in sorted(made) for i, token in enumerate(made[n])
        ]

    follows()


def test_v1_sees_a_request_that_replaces_one_that_left_in_the_same_step(
    v1: CrossSamplingV1, recorded: Recorded
) -> None:
    batch = Batch()
    batch.change([], 2, [])
    batch.step(v1)
    batch.change([0], 1, [])
    assert [(sequence, position) for sequence, position, _ in batch.step(v1)] == [(2, 0), (1, 1)]
    assert sorted((sequence, position) for sequence, position, _ in recorded()) == [
        (0, 0),
        (1, 0),
        (1, 1),
        (2, 0),
    ]


def test_v1_takes_a_preempted_request_up_where_it_was(
    v1: CrossSamplingV1, recorded: Recorded
) -> None:
    """Preempted, a request leaves the batch and comes back with the outputs it had."""
    batch, tokens = Batch(), alone(0, 5)
    batch.change([], 2, [])
    for _ in range(3):
        batch.step(v1)
    kept = batch.rows[0]
    assert kept
    batch.change([0], 0, [])
    batch.step(v1)
    batch.builder.added.append((1, params(0), [1] * NUM_PROMPT, kept[1]))
    batch.rows.append(kept)
    batch.step(v1)
    batch.step(v1)
    assert [token for sequence, _, token in recorded() if sequence == 0] == tokens


def test_v1_changes_what_greedy_sampling_takes_and_says_so(v1: CrossSamplingV1) -> None:
    assert not v1.is_argmax_invariant()


@pytest.mark.parametrize("num_rows", [1, 3])
def test_v1_leaves_warm_up_batches_alone(
    v1: CrossSamplingV1, num_rows: int, recorded: Recorded
) -> None:
    logits = torch.randn(num_rows, VOCAB)
    assert torch.equal(v1.apply(logits.clone()), logits)  # no request was ever added
    builder = BatchUpdateBuilder()
    builder.added.extend((n, params(None), [1], []) for n in range(num_rows))
    v1.update_state(builder.get_and_reset(num_rows))
    v1.update_state(None)
    assert torch.equal(v1.apply(logits.clone()), logits)  # requests that are not ours
    assert recorded() == []


def context(
    slots: Sequence[int], lengths: Sequence[int], fed: Sequence[int], num_padded: int = 0
) -> Any:
    """V2's description of a step: row -> slot, tokens that each row has seen, the last of them.

    On a GPU what it says on the host of the rows' lengths goes on with zeros up to the number of
    rows of a CUDA graph; nothing else of it is padded.
    """
    slot = np.array(slots, np.int32)
    seen = np.array(lengths, np.int32)
    return v2.LogitsContext(
        expanded_idx_mapping=torch.from_numpy(slot),
        idx_mapping=torch.from_numpy(slot),
        idx_mapping_np=slot,
        expanded_local_pos=torch.zeros(len(slot), dtype=torch.int32),
        input_ids=torch.tensor(fed, dtype=torch.int32),
        pos=torch.from_numpy(seen - 1).long(),
        seq_lens_upper_bound_np=np.pad(seen, (0, num_padded)),
    )


@dataclass
class SlotBatch:
    """V2's requests in slots; every step names the rows in any order it likes."""

    adapter: CrossSamplingV2
    prefill_len: Any
    """Tokens that each slot must have seen before its next one is taken, [SLOTS]."""
    sequence: dict[int, int] = field(default_factory=dict)  # slot -> sequence
    outputs: dict[int, list[int]] = field(default_factory=dict)  # sequence -> its output tokens

    def add(self, slot: int, sequence: int) -> None:
        assert self.adapter.add_request(slot, params(sequence))
        self.sequence[slot] = sequence
        outputs = self.outputs.setdefault(sequence, [])
        self.prefill_len[slot] = NUM_PROMPT + len(outputs)

    def step(
        self, slots: Sequence[int], seen: dict[int, int] | None = None, num_padded: int = 0
    ) -> torch.Tensor:
        """Step the rows of `slots`; those in `seen` have been fed only so many tokens yet, and take
        none.
        """
        lengths, fed, logits = [], [], []
        for slot in slots:
            sequence = self.sequence[slot]
            tokens = [1] * NUM_PROMPT + self.outputs[sequence]
            lengths.append((seen or {}).get(slot, len(tokens)))
            fed.append(tokens[lengths[-1] - 1])
            logits.append(
                logits_of(sequence, lengths[-1] - NUM_PROMPT)
                if lengths[-1] >= NUM_PROMPT
                else torch.randn(VOCAB)
            )
        described = context(slots, lengths, fed, num_padded)
        forced = self.adapter.apply(torch.stack(logits), described)
        for slot, row in zip(slots, forced, strict=True):
            if slot not in (seen or {}):
                self.outputs[self.sequence[slot]].append(int(row.argmax()))
        return forced


def test_v2_takes_rows_in_any_order_and_slots_that_are_used_again(vllm_config: VllmConfig) -> None:
    batch, rng = make_v2(vllm_config), np.random.default_rng(0)
    for sequence in range(20):
        batch.add(sequence % SLOTS, sequence)
        for _ in range(rng.integers(1, 5)):
            slots = [slot for slot in batch.sequence if rng.random() < 0.8] or [0]
            rng.shuffle(slots)
            batch.step(slots)
    for sequence, tokens in batch.outputs.items():
        assert tokens == alone(sequence, len(tokens))


def test_v2_takes_a_step_that_is_padded_to_the_size_of_a_cuda_graph(
    vllm_config: VllmConfig,
) -> None:
    batch, rng = make_v2(vllm_config), np.random.default_rng(1)
    for sequence in range(4):
        batch.add(SLOTS - 1 - sequence, sequence)
        for num_padded in range(5):
            batch.step(rng.permutation(list(batch.sequence)).tolist(), num_padded=num_padded)
        waiting = SLOTS - 1 - sequence
        batch.prefill_len[waiting] += 5
        batch.step([waiting], seen={waiting: 2}, num_padded=3)
        batch.prefill_len[waiting] -= 5
    for sequence, tokens in batch.outputs.items():
        assert tokens == alone(sequence, len(tokens))


def test_v2_waits_until_a_prompt_in_chunks_is_complete(
    vllm_config: VllmConfig, recorded: Recorded
) -> None:
    batch = make_v2(vllm_config)
    batch.add(3, 0)
    batch.add(1, 1)
    for chunk in (1, 3):
        forced = batch.step([1, 3], seen={3: chunk})
        assert not torch.isinf(forced[1]).any()
    batch.step([3, 1])
    assert batch.outputs == {0: alone(0, 1), 1: alone(1, 3)}
    assert [(sequence, position) for sequence, position, _ in recorded()] == [
        (0, 0),
        (1, 0),
        (1, 1),
        (1, 2),
    ]


def test_v2_takes_a_preempted_request_up_where_it_was(
    vllm_config: VllmConfig, recorded: Recorded
) -> None:
    """Preempted, a request comes back in another slot, and its outputs are fed again in chunks."""
    batch = make_v2(vllm_config)
    batch.add(0, 0)
    for _ in range(4):
        batch.step([0])
    batch.add(5, 0)
    for chunk in (2, NUM_PROMPT, NUM_PROMPT + 2, NUM_PROMPT + 3):
        assert not torch.isinf(batch.step([5], seen={5: chunk})).any()
    batch.step([5])
    batch.step([5])
    assert batch.outputs[0] == alone(0, 6)
    assert recorded() == [(0, position, token) for position, token in enumerate(alone(0, 6))]


def test_v2_leaves_warm_up_batches_alone(vllm_config: VllmConfig, recorded: Recorded) -> None:
    adapter = make_v2(vllm_config).adapter
    logits = torch.randn(2, VOCAB)
    assert torch.equal(adapter.apply(logits.clone(), context([0, 1], [1, 1], [0, 0])), logits)
    assert not adapter.add_request(0, params(None))
    assert not adapter.add_request(1, params(None))
    assert torch.equal(adapter.apply(logits.clone(), context([0, 1], [1, 1], [0, 0])), logits)
    assert recorded() == []


def test_both_adapters_decide_the_same_for_the_same_requests(
    vllm_config: VllmConfig, recorded: Recorded
) -> None:
    batch, first = Batch(), make_v1(vllm_config)
    batch.change([], 4, [])
    for _ in range(6):
        batch.step(first)
    by_v1 = recorded()
    slots = make_v2(vllm_config)
    for n in range(4):
        slots.add(n, n)
    for _ in range(6):
        slots.step([2, 0, 3, 1])
    assert recorded() == by_v1


@pytest.mark.parametrize(
    ("chosen", "name"), [(False, "CrossSamplingV1"), (True, "CrossSamplingV2")]
)
def test_the_adapter_is_that_of_the_model_runner(chosen: bool, name: str) -> None:
    assert (
        processor_for(SimpleNamespace(use_v2_model_runner=chosen))
        == f"engine.lockstep.vllm_plugin:{name}"
    )


def test_a_vllm_that_knows_of_no_model_runner_v2_gets_the_first_adapter() -> None:
    assert processor_for(SimpleNamespace()) == "engine.lockstep.vllm_plugin:CrossSamplingV1"


def test_the_worker_s_calls_reach_the_sampler_that_vllm_has_built(vllm_config: VllmConfig) -> None:
    batch, adapter, calls = Batch(), make_v1(vllm_config), SamplerCalls()
    batch.change([], 3, [])
    batch.step(adapter)
    last = batch.step(adapter)[1][2]
    assert calls.xsample_decided().num_tokens == 6
    assert calls.xsample_decided().num_tokens == 0
    with pytest.raises(LockstepError, match="decided was token"):
        calls.xsample_collect(np.array([0]), np.array([2]), np.array([VOCAB]))
    collected = calls.xsample_collect(np.array([1]), np.array([2]), np.array([last]))
    assert collected is not None
    assert collected.column("position").to_pylist() == [0, 1]


def test_the_worker_s_calls_open_and_join_a_link(
    v1: CrossSamplingV1, samplers: list[CrossSampler]
) -> None:
    calls, sampler = SamplerCalls(), samplers[-1]
    address = calls.xsample_open("shm", "", 5.0)
    calls.xsample_accept()
    accepted, other = sampler.link, connect(address, 5.0)
    assert accepted
    accepted.close()
    other.close()
    listener = Listener("shm", "", 5.0)
    calls.xsample_connect([listener.address], 5.0)
    assert sampler.link is not accepted
    assert sampler.link
    sampler.link.close()


def test_a_model_runner_that_takes_no_processor_is_named() -> None:
    spec: Any = find_spec(vllm_plugin.__name__)
    as_in_a_new_process: Any = module_from_spec(spec)
    spec.loader.exec_module(as_in_a_new_process)
    with pytest.raises(EngineError, match=r"VLLM_USE_V2_MODEL_RUNNER=1 that needs vLLM 0\.31"):
        as_in_a_new_process.SamplerCalls().xsample_configure(CONFIG)


@pytest.mark.parametrize(("make", "name"), [(make_v1, "V1"), (make_v2, "V2")])
def test_the_worker_is_told_which_model_runner_calls(
    vllm_config: VllmConfig, make: Callable[[VllmConfig], object], name: str
) -> None:
    make(vllm_config)
    assert SamplerCalls().xsample_configure(CONFIG) == name
