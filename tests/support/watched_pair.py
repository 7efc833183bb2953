"""A pair of engines that counts what vLLM's schedulers do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import ray

from engine.core import POLICIES
from engine.lockstep.job import Job
from engine.lockstep.lease_runner import Completed
from engine.lockstep.worker import Decided
from engine.sampling.rule import Rule
from tests.support.engines import OpenPair

# Ray's processes cannot import a test's module: what is defined here travels by value.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Seen(NamedTuple):
    """What an engine's scheduler has done."""

    preemptions: int
    split_prompts: int
    most_in_flight: int


def watch(worker: Any) -> None:
    """Count what vLLM's scheduler does from now on."""
    from vllm.v1.core.sched.scheduler import Scheduler

    preemptions: dict[str, int] = {}
    worker.watched = Seen(0, 0, 0)
    schedule = Scheduler.schedule

    def watched(scheduler: Any, *arguments: Any) -> Any:
        step = schedule(scheduler, *arguments)
        preemptions.update(
            {id: request.num_preemptions for id, request in scheduler.requests.items()}
        )
        split = 0
        for new in step.scheduled_new_reqs:
            end = new.num_computed_tokens + step.num_scheduled_tokens[new.req_id]
            split += end < len(new.prompt_token_ids)
        seen = worker.watched
        in_flight = max(seen.most_in_flight, len(step.num_scheduled_tokens))
        worker.watched = Seen(sum(preemptions.values()), seen.split_prompts + split, in_flight)
        return step

    Scheduler.schedule = watched


class WatchedPair(OpenPair):
    """Counts what its two schedulers do."""

    seen = Seen(0, 0, 0)

    def ready(self) -> None:
        for policy in POLICIES:
            self.do(policy, watch)

    def run(self, jobs: Sequence[Job], rule: Rule) -> Iterator[Completed | Decided]:
        """A lease; `seen` is then what each of the schedulers has done at least."""
        yield from super().run(jobs, rule)
        seen = [self.do(policy, lambda worker: worker.watched) for policy in POLICIES]
        self.seen = Seen(*map(min, zip(*seen, strict=True)))
