"""The compiler of Triton's backend `cpu`: it compiles nothing, kernels are interpreted."""

from __future__ import annotations

from types import ModuleType
from typing import Any, NoReturn

from triton.backends.compiler import BaseBackend, GPUTarget


class InterpretedBackend(BaseBackend):
    """Triton asks every backend for a compiler; under TRITON_INTERPRET=1 it never calls it."""

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        return bool(target.backend == "cpu")

    def hash(self) -> str:
        return "cpu-interpreted"

    def parse_options(self, options: dict[str, Any]) -> NoReturn:
        raise RuntimeError("the backend cpu compiles nothing: set TRITON_INTERPRET=1")

    def add_stages(self, stages: dict[str, Any], options: object, language: object) -> None: ...

    def load_dialects(self, context: object) -> None: ...

    def get_module_map(self) -> dict[str, ModuleType]:
        return {}
