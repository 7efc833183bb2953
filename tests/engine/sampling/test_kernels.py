"""The kernels of a device, in Triton's interpreter, against the same passes in torch's operations;
and whether Triton compiles them for GPUs, which needs none.

`make test` has no Triton and leaves this file out; `make test-v2` brings it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.sampling import on_device, plain, summary
from engine.sampling.distribution import FIRST_CUT, Sampling
from engine.sampling.noise import stream_key
from engine.sampling.rule import Rule
from engine.sampling.sampler import CrossSampler, Phase, SamplerConfig
from tests.support.paths import ROOT
from tests.support.pretended_gpu import COUNTS, GpuSampler, as_kernels, reset

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("without TRITON_INTERPRET=1 Triton needs a GPU", allow_module_level=True)

from engine.sampling import kernels

# In the interpreter NumPy warns of NaN and infinity, which a device computes with in silence.
pytestmark = [pytest.mark.v2, pytest.mark.filterwarnings("ignore::RuntimeWarning")]

PADDING = 5
KINDS = ("normal", "flat", "peaked", "ties", "masked", "high", "nan", "infinite", "nothing")


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """Blocks that are small enough for a row to have several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "BLOCK_SIZE", 16)
        yield


def row_of(kind: str, size: int, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    row = 3 * rng.standard_normal(size)
    match kind:
        case "flat":
            row[:] = 2.0
        case "peaked":
            row[rng.integers(size)] = 25
        case "ties":
            row[:] = rng.integers(0, 3, size)
        case "masked":
            row[rng.random(size) < 0.6] = -np.inf
            row[rng.integers(size)] = 1
        case "high":
            row += 300
        case "nan":
            row[rng.integers(size)] = np.nan
        case "infinite":
            row[rng.integers(size)] = np.inf
        case "nothing":
            row[:] = -np.inf
    return np.round(row * 8) / 8


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """Logits [B, V + padding], and V. The padding is higher than all else."""
    size = draw(st.sampled_from([1, 15, 16, 17, 70]))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=4))
    seed = draw(st.integers(0, 999))
    rows = np.stack([row_of(kind, size, seed + n) for n, kind in enumerate(kinds)])
    padded = np.concatenate((rows, np.full((len(rows), PADDING), 400.0)), 1)
    return torch.from_numpy(padded).float(), size


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(batches(), st.sampled_from([0.0, 0.4, 1.0, 1.7]), st.booleans())
def test_a_summary_is_what_torch_says(
    batch: tuple[torch.Tensor, int], temperature: float, is_fed: bool
) -> None:
    logits, size = batch
    fed = torch.arange(len(logits), dtype=torch.int32) * 7 if is_fed else None
    before = logits.clone()
    found, expected = (
        passes.summarise(logits, fed, size, temperature).numpy() for passes in (kernels, plain)
    )
    assert torch.equal(logits.nan_to_num(9), before.nan_to_num(9))
    if is_fed:
        assert found[:, summary.PREVIOUS].tolist() == [7 * n for n in range(len(logits))]
    log_mass = found[:, summary.LOG_MASS].view(np.float32)
    good = np.isfinite(log_mass)
    assert good.tolist() == np.isfinite(expected[:, summary.LOG_MASS].view(np.float32)).tolist()
    for column in (summary.BEST, summary.LOG_MASS, summary.ENTROPY):
        close(*(x[good, column].view(np.float32) for x in (found, expected)))
    for row in np.flatnonzero(good):
        mine, theirs = ({t: p for t, p in candidates(x[row])} for x in (found, expected))
        assert list(mine) == sorted(mine)
        if found[row, summary.COUNT] == expected[row, summary.COUNT]:
            assert list(mine) == list(theirs)
        # At the cut itself rounding decides.
        for token in mine.keys() | theirs.keys():
            p = mine.get(token, theirs.get(token, 0.0))
            assert (token in mine and token in theirs) or abs(p - FIRST_CUT) < 1e-4
            if token in mine and token in theirs and temperature:
                close(mine[token], theirs[token])


def candidates(packed: Any) -> list[tuple[int, float]]:
    num = min(packed[summary.COUNT], summary.MAX_CANDIDATES)
    tokens = packed[summary.TOKEN :][:num]
    return list(
        zip(tokens.tolist(), packed[summary.LOG_P :][:num].view(np.float32).tolist(), strict=True)
    )


def test_candidates_that_find_no_room_are_counted() -> None:
    packed = kernels.summarise(torch.zeros(1, 200), None, 180, 1.0).numpy()[0]
    assert packed[summary.COUNT] == 180
    assert [token for token, _ in candidates(packed)] == list(range(summary.MAX_CANDIDATES))


def test_at_temperature_0_the_first_candidate_is_the_lowest_of_the_best() -> None:
    logits = torch.zeros(3, 200)
    logits[0, [150, 70, 160]] = 4
    logits[1, 199] = 9  # padding
    logits[2, 40] = torch.finfo(torch.float32).max
    packed = kernels.summarise(logits, None, 190, 0.0).numpy()
    assert packed[:, summary.TOKEN].tolist() == [70, 0, 40]


@settings(max_examples=30, deadline=None)
@given(batches(), st.integers(0, 999), st.booleans())
def test_what_is_measured_and_forced_is_what_torch_says(
    batch: tuple[torch.Tensor, int], seed: int, measures_all: bool
) -> None:
    logits, size = batch
    rng = np.random.default_rng(seed)
    num = int(rng.integers(1, len(logits) + 1))
    plan = np.stack(
        (
            rng.permutation(len(logits))[:num],
            rng.integers(0, size, num),
            rng.integers(0, size, num),
        ),
        1,
    ).astype(np.int32)
    if not measures_all:
        plan[::2, 2] = -1
    packed = plain.summarise(logits, None, size, 1.0)
    forced, numbers = [], []
    for passes in (kernels, plain):
        forced.append(logits.clone())
        flat = torch.from_numpy(plan.ravel())
        numbers.append(passes.measure_and_force(forced[-1], packed, flat, size).numpy())
    assert torch.equal(forced[0].nan_to_num(9, 777), forced[1].nan_to_num(9, 777))
    assert torch.isposinf(forced[0][plan[:, 0], plan[:, 1]]).all()
    measured = plan[:, 2] >= 0
    found, expected = (x[measured] for x in numbers)
    close(found[:, :3], expected[:, :3])
    assert found[:, 3:].tolist() == expected[:, 3:].tolist()


def test_a_row_has_the_same_bits_in_any_batch() -> None:
    logits = torch.randn(6, 300)
    together = kernels.summarise(logits, None, 290, 0.7)
    alone = torch.cat([kernels.summarise(row[None], None, 290, 0.7) for row in logits])
    scalars = slice(summary.BEST, summary.TOKEN)
    assert torch.equal(together[:, scalars], alone[:, scalars])
    assert torch.equal(together[:, summary.COUNT], alone[:, summary.COUNT])


@pytest.mark.parametrize("sampling", [Sampling(1.0, 0.9), Sampling(0.6, 0.95, 20)])
def test_a_sampler_with_the_kernels_decides_and_records_what_it_does_on_the_cpu(
    sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_device, "load_passes", lambda: as_kernels(kernels))
    config = SamplerConfig("base", 100, sampling, 0.1, 4)
    phase = Phase(
        paired=False,
        rule=Rule(),
        key=np.array([stream_key(0, "p", n) for n in range(4)], np.uint64),
        forward=np.ones(4, np.bool_),
        budget=np.zeros(4, np.int64),
        offset=np.zeros(4, np.int64),
        stop_token=0,
    )
    samplers = CrossSampler(config), GpuSampler(config)
    for sampler in samplers:
        sampler.begin(phase)
    previous = np.full(4, -1)
    for step in range(6):
        kinds = ("peaked", "normal", "ties", "masked")
        rows = np.stack([row_of(kind, 104, 10 * step + n) for n, kind in enumerate(kinds)])
        logits = torch.from_numpy(rows).float()
        reset()
        forced = [
            sampler.step(logits.clone(), np.arange(4), np.full(4, step), previous).argmax(-1)
            for sampler in samplers
        ]
        assert COUNTS.own_kernels == 2
        assert forced[0].tolist() == forced[1].tolist()
        previous = forced[0].numpy()
    on_cpu, on_gpu = (s.trace.collect(np.arange(4)).to_pydict() for s in samplers if s.trace)
    for name in ("sequence", "position", "token", "nucleus", "top1", "rank"):
        assert on_gpu[name] == on_cpu[name]
    for name in ("entropy", "logp"):
        close(on_gpu[name], on_cpu[name])


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from engine.sampling import kernels

common = dict(logits="*fp32", stride="i32", packed="*i32", vocab_size="i32", BLOCK="constexpr")
first = common | dict(fed="*i32", inverse_temperature="fp32", cut="fp32")
first |= dict(HAS_FED="constexpr", IS_GREEDY="constexpr")
second = common | dict(plan="*i32", numbers="*fp32")
for kernel, types, constants in (
    (kernels.summarise_row, first, dict(HAS_FED=True, IS_GREEDY=False)),
    (kernels.summarise_row, first, dict(HAS_FED=False, IS_GREEDY=True)),
    (kernels.measure_and_force_row, second, {}),
):
    types = {name: types[name] for name in kernel.arg_names}
    source = ASTSource(kernel, types, constants | dict(BLOCK=kernels.BLOCK_SIZE))
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    assert triton.compile(source, target=target, options=dict(num_warps=8)).asm["cubin"]
"""


@pytest.mark.parametrize("capability", ["80", "90"])
def test_triton_compiles_the_kernels_for_a_gpu(capability: str, tmp_path: Path) -> None:
    """The interpreter takes more of Python than the compiler does."""
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET")
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), environment.get("PYTHONPATH", "")))
    subprocess.run([sys.executable, "-c", COMPILE, capability], check=True, env=environment)
