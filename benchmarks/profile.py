"""A worker with a stopwatch: the project's own, whose step is timed by part while the stopwatch is
on.

Off, nothing is wrapped. On, the parts are wrapped where their callers find them, and each is
charged with what it takes itself, without parts inside it; the sums are wall time, so the exchange
includes waiting for the twin. On a GPU `summary` is charged with the forward pass, which it waits
for, and `measure` with nothing: the device measures by itself.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks.random_weights import RandomWeightsWorker

_OF_HOST = ("log_probabilities", "nuclei")
_OF_SAMPLER = ("exchange", "couple", "fires", "decide")
_PARTS = ("summary", *_OF_HOST, *_OF_SAMPLER, "measure", "trace", "force_and_rest", "vllm")


class ProfilingWorker(RandomWeightsWorker):
    """A worker, and the time that each part of a step takes."""

    def start_profile(self) -> None:
        """Wrap the parts."""
        from engine.lockstep import vllm_plugin
        from engine.sampling import on_device, on_host, sampler, trace

        self._seconds: dict[str, float] = defaultdict(float)
        self._calls: dict[str, int] = defaultdict(int)
        self._inner: list[float] = []  # seconds of the parts inside each part that runs now
        cross = vllm_plugin._the_sampler()
        self._undo: list[Callable[[], None]] = []
        for part in _OF_HOST:
            self._wrap(on_host, part, part)
        self._wrap(on_device.OnDevice, "previous", "summary")
        self._wrap(on_device.OnDevice, "nuclei", "nuclei")
        for part in _OF_SAMPLER:
            self._wrap(sampler, part, part)
        self._wrap(trace, "measure", "measure")
        for name in ("append", "_measure"):
            self._wrap(cross.trace, name, "trace")
        self._wrap(cross, "step", "force_and_rest")
        self._wrap(self._engine, "step", "vllm")

    def _wrap(self, owner: Any, name: str, part: str) -> None:
        plain = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            self._inner.append(0.0)
            try:
                return plain(*args, **kwargs)
            finally:
                seconds = time.perf_counter() - began
                self._seconds[part] += seconds - self._inner.pop()
                self._calls[part] += 1
                if self._inner:
                    self._inner[-1] += seconds

        setattr(owner, name, timed)
        self._undo.append(lambda: setattr(owner, name, plain))

    def stop_profile(self) -> tuple[int, dict[str, float]]:
        """Unwrap; steps, and microseconds of one by part. `force_and_rest`: the rest of the
        sampler, `vllm`: of all.

        Parts that were never called, as in a solo phase, are left out.
        """
        for undo in self._undo:
            undo()
        steps = self._calls["vllm"]
        parts = {
            part: 1e6 * self._seconds[part] / steps for part in _PARTS if part in self._seconds
        }
        return steps, {part: round(us, 1) for part, us in parts.items()} | {
            "step": round(sum(parts.values()), 1)
        }
