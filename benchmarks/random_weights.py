"""A worker whose engine makes its random weights itself, for models too large to be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.models import fill, read_shape
from engine.lockstep.worker import Loaded, PolicyWorker


class RandomWeightsWorker(PolicyWorker):
    """PolicyWorker, and random weights where vLLM was told to load none."""

    def load(self, kv_cache_bytes: int | None) -> Loaded:
        """As it is, then the weights are made."""
        loaded = super().load(kv_cache_bytes)
        self.fill()
        return loaded

    def fill(self) -> None:
        """Make the weights on the device, if vLLM has loaded none."""
        args = self._config.engine_args
        if args.get("load_format") == "dummy":
            self._engine.collective_rpc(_fill, args=(args["model"], self._config.sampler.policy))


def _fill(worker: Any, model: str, policy: str) -> None:
    fill(worker.get_model(), read_shape(Path(model)), policy)
