"""What does the help of an idle engine save? The same jobs with and without it.

    python -m benchmarks.idle [--model embedded|50m|500m] [--sequences 320] [--rounds 3]
                              [--json FILE] [other options of benchmarks.paired]

All responses have one primary, and their budget is spent early, so that most tokens are made by the
primary alone. Without help the other engine is idle then; with help it loads the primary's weights
and takes a share. Both contenders use the same engines, loaded once, and take turns; their tokens
must be equal. A round with help begins with weights that were given back, and what that took is its
own.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from dataclasses import replace

from rich.table import Table

from benchmarks.result import Result, machine, options, row, speed_up, spread
from benchmarks.workload import Workload, add_options, make_workload
from engine.lockstep.cluster import own_cluster
from engine.lockstep.engine_pair import PairConfig
from engine.lockstep.lease_runner import Completed, LeaseRunner

CONTENDERS = {"with help": True, "without": False}


def main() -> None:
    """Load the pair, run the rounds, print the table."""
    parser = options(__doc__, rounds=3)
    add_options(parser)
    parser.set_defaults(budget="1")
    chosen = parser.parse_args()
    workload = _of_one_primary(make_workload(chosen))
    with own_cluster(2):
        pair = LeaseRunner(_helpful(workload.config))
        try:
            pair.start()
            result = run(pair, workload, chosen)
        finally:
            pair.kill()
    result.publish([table(result)], chosen.json)


def _of_one_primary(workload: Workload) -> Workload:
    """The jobs whose primary is that of the first one."""
    forward = workload.jobs[0].forward
    return replace(workload, jobs=[job for job in workload.jobs if job.forward == forward])


def _helpful(config: PairConfig) -> PairConfig:
    """The same pair, whose engines switch also where both are on one GPU and it saves nothing."""
    workers = {policy: replace(own, idle_helps=True) for policy, own in config.workers.items()}
    return replace(config, idle_helps=True, workers=workers)


def run(pair: LeaseRunner, workload: Workload, chosen: argparse.Namespace) -> Result:
    """The rounds, after one that does not count."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for round_ in range(chosen.rounds + 1):
        made = {}
        for name in list(CONTENDERS)[:: 1 if round_ % 2 else -1]:
            took, made[name] = carry_out(pair, workload, CONTENDERS[name])
            if round_:
                seconds[name].append(took)
        assert made["with help"] == made["without"], "the help has made other tokens"
    return Result(
        f"idle {chosen.model}",
        {name: value for name, value in vars(chosen).items() if name not in ("json", "models")}
        | {"tokens": sum(map(len, made["without"].values()))},
        {f"{name}: seconds": spread(values) for name, values in seconds.items()}
        | {"a switch: seconds": spread(time_switches(pair, chosen.rounds))},
        {"with help / without": speed_up(seconds["without"], seconds["with help"])},
    )


def time_switches(pair: LeaseRunner, rounds: int) -> list[float]:
    """Seconds that an engine takes to load other weights and to prove them, there and back."""
    seconds = []
    for to in ("rl", "base") * rounds:
        began = time.perf_counter()
        pair.engines.begin_switch("base", to)
        while pair.engines.is_busy:
            pair.engines.next_message()
        seconds.append(time.perf_counter() - began)
    return seconds


def carry_out(
    pair: LeaseRunner, workload: Workload, with_help: bool
) -> tuple[float, dict[int, list[int]]]:
    """Seconds that the jobs take as one lease, weights given back included, and their tokens."""
    pair.engines.may_switch = with_help
    responses: dict[int, list[int]] = defaultdict(list)
    began = time.perf_counter()
    for event in pair.run(workload.jobs, workload.rule):
        if isinstance(event, Completed):
            columns = event.tokens.select(["sequence", "token"]).to_pydict()
            for sequence, token in zip(columns["sequence"], columns["token"], strict=True):
                responses[sequence].append(token)
    pair.engines.switch_back()
    assert pair.engines.may_switch == with_help, "a switch has failed"
    return time.perf_counter() - began, dict(responses)


def table(result: Result) -> Table:
    """The result for a reader."""
    shown = Table(
        "", "seconds", "min-max", caption=f"{result.settings['tokens']:,} tokens; {machine()}"
    )
    for name in CONTENDERS:
        shown.add_row(name, *row(result.measured[f"{name}: seconds"]))
    shown.add_row("a switch", *row(result.measured["a switch: seconds"], ".3f"))
    shown.add_row("with help / without", *row(result.ratios["with help / without"], ".3f"))
    return shown


if __name__ == "__main__":
    main()
