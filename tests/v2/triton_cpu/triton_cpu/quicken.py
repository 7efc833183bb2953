"""Triton's interpreter, made quick enough for whole runs.

vLLM calls it in every process that it starts, as a plugin.
"""

from __future__ import annotations

import inspect
from typing import Any


class Kept:
    """A patch that is never taken back."""

    def restore(self) -> None: ...


def patch_once() -> None:
    """Let the interpreter patch `triton.language` once in a process.

    It does so, and takes it back, at every launch of a kernel and every call of a kernel's helpers:
    half of the time of a step. Nothing else in the process uses `triton.language`.
    """
    from triton.runtime import interpreter

    patch = interpreter._patch_lang
    if getattr(patch, "is_once", False):
        return
    patched: set[frozenset[str]] = set()

    def once(function: Any) -> Kept:
        visible = frozenset(
            value.__name__
            for value in function.__globals__.values()
            if inspect.ismodule(value) and value.__name__.startswith("triton.language")
        )
        if visible not in patched:
            patch(function)
            patched.add(visible)
        return Kept()

    once.is_once = True  # type: ignore[attr-defined]
    interpreter._patch_lang = once
