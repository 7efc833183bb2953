"""The driver of Triton's backend `cpu`: it says that the CPU is the device."""

from __future__ import annotations

from types import ModuleType
from typing import NoReturn

import torch
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase


class CpuDriver(DriverBase):
    """What vLLM and Triton ask a driver for before they launch a kernel."""

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cpu", 0, 1)

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")

    def get_device_interface(self) -> ModuleType:
        return torch.cpu

    def get_current_device(self) -> int:
        return 0

    def map_python_to_cpp_type(self, ty: str) -> NoReturn:
        raise RuntimeError("the backend cpu launches nothing: set TRITON_INTERPRET=1")

    def get_benchmarker(self) -> NoReturn:
        raise RuntimeError("interpreted kernels are not measured")
