"""The fingerprint of weights says that they are the same, and nothing else."""

from __future__ import annotations

import pytest
import torch

from engine.lockstep.weights import digest_of_model, digest_of_tensors, probe_prompt

WEIGHTS = {
    "a": torch.arange(200_000, dtype=torch.float32),
    "b": torch.ones(3, dtype=torch.bfloat16),
}


def test_neither_order_nor_memory_layout_count() -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    turned = matrix.T.contiguous().T
    first, second = [("m", matrix), *WEIGHTS.items()], [*WEIGHTS.items(), ("m", turned)]
    assert digest_of_tensors(first) == digest_of_tensors(second)


@pytest.mark.parametrize("place", [0, 65_535, 65_536, 199_999])
def test_one_bit_counts_wherever_it_is(place: int) -> None:
    other = WEIGHTS["a"].clone()
    other[place] = torch.nextafter(other[place], torch.tensor(torch.inf))
    assert digest_of_tensors((WEIGHTS | {"a": other}).items()) != digest_of_tensors(WEIGHTS.items())


@pytest.mark.parametrize(
    "other",
    [
        {"a": WEIGHTS["a"], "c": WEIGHTS["b"]},
        {"a": WEIGHTS["a"].reshape(2, -1), "b": WEIGHTS["b"]},
        {"a": WEIGHTS["a"], "b": WEIGHTS["b"].half()},
        {"a": WEIGHTS["a"].roll(65_536), "b": WEIGHTS["b"]},
        {"a": WEIGHTS["a"]},
    ],
    ids=["name", "shape", "dtype", "blocks exchanged", "one missing"],
)
def test_names_shapes_dtypes_and_places_count(other: dict[str, torch.Tensor]) -> None:
    assert digest_of_tensors(other.items()) != digest_of_tensors(WEIGHTS.items())


def test_buffers_of_a_model_count() -> None:
    models = [torch.nn.BatchNorm1d(4) for _ in range(2)]
    assert digest_of_model(models[0]) == digest_of_model(models[1])
    models[1].running_mean = torch.full((4,), 0.5)
    assert digest_of_model(models[0]) != digest_of_model(models[1])


def test_every_size_of_a_number_and_none_at_all() -> None:
    for dtype in (torch.float8_e4m3fn, torch.int8, torch.float16, torch.float64):
        assert digest_of_tensors([("x", torch.zeros(5).to(dtype))])
    assert digest_of_tensors([("scale", torch.tensor(1.0)), ("packed away", torch.empty(0))])


def test_the_probe_is_of_the_vocabulary_and_fits_the_context() -> None:
    assert probe_prompt(320, 255) == sorted(set(probe_prompt(320, 255)))
    assert max(probe_prompt(320, 255)) == 319
    assert len(probe_prompt(320, 3)) == 3
