"""A GPU that is not there: tensors that count what a real one would be asked for.

They say that they are on torch's device `meta`, which needs no driver, and their numbers lie in the
host's memory. They refuse `.numpy()` and operations with tensors of the host, as CUDA does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from engine.arrays import Ints
from engine.sampling import plain
from engine.sampling.sampler import CrossSampler

GPU = torch.device("meta")
ALLOCATIONS = ("aten::new_empty", "aten::empty_like", "aten::empty")


@dataclass
class Counts:
    """What the pretended GPU was asked for."""

    kernels: int = 0
    """Operations that compute or copy on the device; views and allocations are none."""
    own_kernels: int = 0
    """Those of them that are the project's two passes."""
    to_host: int = 0
    """Copies to the host, each of which the host waits for."""
    to_device: int = 0
    """Copies to the device."""
    waits: int = 0
    """Other operations that the host waits for: their result's shape or value is on the device."""
    num_bytes: int = 0
    """Bytes that operations of torch read and write on the device."""
    largest: int = 0
    """Elements of the largest tensor that was made on the device."""
    largest_to_host: int = 0
    """Elements of the largest tensor that left it."""


COUNTS = Counts()
"""What was asked for since `reset`."""


def reset() -> None:
    """Count from 0 again."""
    COUNTS.__dict__.update(Counts().__dict__)


class GpuTensor(torch.Tensor):
    """A tensor of the pretended GPU, around one of the host that holds its numbers."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> GpuTensor:
        made: GpuTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=GPU,
        )
        made.numbers = inner
        return made

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"GpuTensor({self.numbers})"

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        operation: Any,
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Any:
        return _run(operation, arguments, dict(options or {}))


def on_gpu(tensor: torch.Tensor) -> GpuTensor:
    """The tensor as one of the pretended GPU, over the same memory."""
    return GpuTensor(tensor)


def _run(operation: Any, arguments: Sequence[Any], options: dict[str, Any]) -> Any:
    name = operation.name().split(".")[0]
    tensors = _tensors((arguments, options))
    mine = [tensor for tensor in tensors if isinstance(tensor, GpuTensor)]
    inner, inner_options = _map(_inner, (arguments, options))
    target = options.get("device")
    if name == "aten::copy_":
        return _copy(*arguments[:2])
    if name == "aten::_to_copy" and target is not None and torch.device(target).type == "cpu":
        COUNTS.to_host += 1
        COUNTS.largest_to_host = max(COUNTS.largest_to_host, mine[0].numel())
        return operation(*inner, **inner_options)
    for tensor in tensors:
        if not isinstance(tensor, GpuTensor) and tensor.dim():
            raise RuntimeError(f"{name}: tensors on two devices, the GPU and the host")
    if name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"):
        COUNTS.waits += 1
    if name == "aten::_local_scalar_dense":
        return operation(*inner, **inner_options)
    if target is not None:
        inner_options["device"] = "cpu"
    result = operation(*inner, **inner_options)
    made = _tensors(result)
    known = {tensor.numbers.untyped_storage().data_ptr() for tensor in mine}
    is_view = not name.endswith("_") and all(
        tensor.untyped_storage().data_ptr() in known for tensor in made
    )
    if not is_view:
        COUNTS.largest = max([COUNTS.largest, *(tensor.numel() for tensor in made)])
        if name not in ALLOCATIONS:
            COUNTS.kernels += 1
            COUNTS.num_bytes += sum(x.numel() * x.element_size() for x in [*mine, *made])
    if name.endswith("_"):
        return arguments[0]
    return _map(lambda x: on_gpu(x) if isinstance(x, torch.Tensor) else x, result)


def _copy(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    if isinstance(target, GpuTensor) and isinstance(source, GpuTensor):
        COUNTS.kernels += 1
        COUNTS.num_bytes += 2 * target.numel() * target.element_size()
    elif isinstance(target, GpuTensor):
        COUNTS.to_device += 1
    else:
        COUNTS.to_host += 1
        COUNTS.largest_to_host = max(COUNTS.largest_to_host, source.numel())
    _inner(target).copy_(_inner(source))
    return target


def _inner(value: Any) -> Any:
    return value.numbers if isinstance(value, GpuTensor) else value


def _map(change: Callable[[Any], Any], value: Any) -> Any:
    """`value` with all that its lists, tuples and mappings hold changed; torch's own is slow."""
    if isinstance(value, list | tuple):
        return type(value)([_map(change, each) for each in value])
    if isinstance(value, dict):
        return {name: _map(change, each) for name, each in value.items()}
    return change(value)


def _tensors(values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    _map(lambda x: found.append(x) if isinstance(x, torch.Tensor) else None, values)
    return found


_ONE_AT_A_TIME = Lock()


def _as_kernel(run: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """One of the project's passes as a kernel of the pretended GPU."""

    def kernel(*arguments: Any) -> torch.Tensor:
        assert all(isinstance(x, GpuTensor) for x in _tensors(arguments))
        COUNTS.kernels += 1
        COUNTS.own_kernels += 1
        # A device computes with NaN and infinity in silence. The interpreter's state is global.
        with np.errstate(all="ignore"), _ONE_AT_A_TIME:
            return on_gpu(run(*map(_inner, arguments)))

    return kernel


def as_kernels(passes: Any) -> Any:
    """A module of the two passes, each of which counts as one kernel of the pretended GPU."""
    return SimpleNamespace(
        summarise=_as_kernel(passes.summarise),
        measure_and_force=_as_kernel(passes.measure_and_force),
    )


def load_passes() -> Any:
    """In place of `on_device.load_passes`: torch's operations, as if they were kernels."""
    return as_kernels(plain)


class GpuSampler(CrossSampler):
    """A sampler whose engine is on the pretended GPU; tests give and take tensors of the host."""

    def step(
        self, logits: torch.Tensor, sequence: Ints, emitted: Ints, previous: Ints | torch.Tensor
    ) -> torch.Tensor:
        fed = torch.as_tensor(previous).int()
        super().step(on_gpu(logits), sequence, emitted, on_gpu(fed))
        return logits
