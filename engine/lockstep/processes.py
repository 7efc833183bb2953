"""The processes of a pair's engines on this host: remembered while they live, ended with the pair.

Ray does not end a process that is stopped, and the ranks of a killed vLLM engine leave their named
shared memory behind. Both are ended and removed here.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil
import ray

from engine.lockstep.worker import Place

_VLLM_SHARED_MEMORY = ("/dev/shm/psm_*", "/dev/shm/vllm_dist_*", "/dev/shm/sem.mp-*")


class EngineProcesses:
    """Processes and shared memory that the engines of one pair were seen with."""

    def __init__(self) -> None:
        self._processes: list[psutil.Process] = []
        self._shared_memory: set[Path] = set()

    def remember(self, places: Iterable[Place]) -> None:
        """Note the process trees of these workers and the shared memory that they have mapped.

        Where Ray or a process is gone already, what was seen before counts.
        """
        places = list(places)
        if not places:
            return  # asking Ray where this is would start a cluster, where there is none any more
        with suppress(Exception):
            this_node = ray.get_runtime_context().get_node_id()
            for place in places:
                if place.node_id != this_node:
                    continue
                worker = psutil.Process(place.pid)
                tree = [worker, *worker.children(recursive=True)]
                self._processes += [each for each in tree if each not in self._processes]
                mapped = {Path(each.path) for process in tree for each in process.memory_maps()}
                self._shared_memory |= {
                    file for file in mapped if any(map(file.match, _VLLM_SHARED_MEMORY))
                }

    def kill(self) -> None:
        """Kill the processes and remove their shared memory."""
        for process in self._processes:  # a stopped process does not hear Ray
            with suppress(psutil.Error):
                process.kill()
        for file in self._shared_memory:
            with suppress(OSError):
                file.unlink()
        self._processes, self._shared_memory = [], set()
