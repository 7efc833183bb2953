"""Resident memory of a process, or of it and all below it, sampled while something runs."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import pairwise
from threading import Event, Thread
from types import TracebackType
from typing import Self

import psutil

SAMPLE_SECONDS = 0.05


class Watch:
    """Samples in a `with` block: `samples`, bytes, one every SAMPLE_SECONDS."""

    def __init__(self, process: int | None = None, with_children: bool = False) -> None:
        self._process, self._with_children, self._over = (
            process or os.getpid(),
            with_children,
            Event(),
        )
        self._thread = Thread(target=self._watch, daemon=True)
        self.samples: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    @property
    def peak(self) -> int:
        """Bytes; 0 where the process was gone at once."""
        return max(self.samples, default=0)

    def peaks(self, parts: int) -> list[int]:
        """The peak of each part of the time, bytes."""
        bounds = [len(self.samples) * part // parts for part in range(parts + 1)]
        return [max(self.samples[a:b], default=0) for a, b in pairwise(bounds)]

    def _watch(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.samples.append(resident(self._process, self._with_children))


def resident(process: int, with_children: bool) -> int:
    """Bytes of resident memory; processes that have just ended count as none."""
    total = 0
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process)
        for one in (parent, *(parent.children(recursive=True) if with_children else ())):
            with suppress(psutil.NoSuchProcess):
                total += one.memory_info().rss
    return total
