"""How many times faster than what people do today? Lock-step, and a sweep, against rivals that make
the same responses.

    python -m benchmarks.against [--rivals per_token,transformers,...] [--curve] [--batch 64]
    [--sequences 64]
                                 [--rounds 3] [--json FILE]

The work is the project's default on the embedded pair: forward, unlimited budget, js above its
threshold, top-p 0.7. With --curve also all responses with budgets 0 to 8, a sweep against
`regenerate`. Every contender works in its own way with its own noise, so lengths differ and seconds
a token (of a curve: a problem and sample) are compared. All make one batch of sequences, so that
every one of them pays for its emptying end; the windows of per_token hold 30, as in the scripts
that work so, and its two engines and those of regenerate take turns on one core. All are loaded and
warm before anything is timed, and take turns, in another order every round. What is timed is also
what is checked: if the responses of a rival are not drawn from the distribution that lock-step
draws from, the comparison is void and the command fails. So it does if as many responses without
interventions would pass the check.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from typing import Any

import ray
from rich.table import Table

from benchmarks.result import Result, machine, row, speed_up, spread
from benchmarks.result import options as common_options
from benchmarks.rivals.ask import Ask
from benchmarks.rivals.contender import Contender, Made, curves, end, p_value, start, tokens
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.run.placement import pair_config, ray_cluster
from engine.run.plan import Plan, prepare
from engine.run.settings import load
from engine.sampling.distribution import Sampling
from engine.sampling.noise import stream_key
from evaluators.tasks.registry import load_task

SAMPLES = 4
LAST_BUDGET = 8
MIN_P = 0.001
# Sequences that a slow rival makes; the windows of (a) hold 30.
NUM_SEQUENCES = {
    "per_token": 60,
    "per_token_by_default": 60,
    "transformers": 64,
    "http": 64,
    "regenerate": 64,
}
UNLIMITED: tuple[int | None, ...] = (None,)
CURVE: tuple[int | None, ...] = tuple(range(LAST_BUDGET + 1))


class Work:
    """The sequences, the first of every (problem, sample), as lock-step's jobs and as the rivals'
    Ask.
    """

    def __init__(self, plan: Plan, num_sequences: int) -> None:
        self.plan = plan
        self.keys = list(islice(plan.work.trajectories(), num_sequences))

    @cached_property
    def problems(self) -> list[str]:
        return [key.problem for key in self.keys]

    def ask(self, num_sequences: int, budget: int | None) -> Ask:
        """What a rival is asked."""
        config, rule, pair = self.plan.config, self.plan.rule, self.plan.pair
        jobs = [self.plan.work.job(key) for key in self.keys[:num_sequences]]
        sampling = Sampling(config.temperature, config.top_p, config.top_k)
        limits = (budget, rule.threshold, sampling, jobs[0].max_tokens, pair.stop_token_ids)
        return Ask(pair.base, pair.rl, [job.prompt for job in jobs], *limits)

    def lockstep(self, pair: LeaseRunner, budgets: tuple[int | None, ...], seed: int) -> Made:
        """The responses of every budget, by one lease of the pair."""
        jobs = [
            replace(
                self.plan.work.job(key),
                budget=budget,
                noise_key=stream_key(seed, key.problem, key.sample),
            )
            for key in self.keys
            for budget in budgets
        ]
        responses: list[list[int]] = [[] for _ in jobs]
        for event in pair.run(jobs, self.plan.rule):
            if isinstance(event, Completed):
                columns = event.tokens.select(["sequence", "token"]).to_pydict()
                for sequence, token in zip(columns["sequence"], columns["token"], strict=True):
                    responses[sequence].append(token)
        return {budget: responses[place :: len(budgets)] for place, budget in enumerate(budgets)}


def main() -> None:
    """Load everything, run the rounds, check, print."""
    options = _options()
    work = Work(_plan(options), options.sequences)
    models = (work.plan.pair.base, work.plan.pair.rl)
    with ray_cluster(work.plan):
        pair, rivals = LeaseRunner(pair_config(work.plan, 0)), dict[str, Any]()
        try:
            pair.start()
            wanted = [*options.rivals, *(["regenerate"] if options.curve else [])]
            rivals, left_out = start(
                dict.fromkeys(wanted), models, work.plan.max_model_len, options.device
            )
            result = run(work, pair, rivals, options)
        finally:
            end(rivals.values())
            pair.kill()
    result.details["left out"] = left_out
    result.publish(tables(result), options.json)
    refuse_void(result.details["p"])


def refuse_void(p: dict[str, float]) -> None:
    """End the command if a rival made other responses than lock-step. p: of each rival."""
    if void := [name for name, value in p.items() if value < MIN_P]:
        sys.exit(
            f"void: {', '.join(void)}: not the distribution that lock-step samples from (p <"
            f" {MIN_P})"
        )


def run(
    work: Work, pair: LeaseRunner, rivals: dict[str, Any], options: argparse.Namespace
) -> Result:
    """Both comparisons."""
    result = Result(
        "against", vars(options) | {"json": None}, details={"p": {}, "sequences": {}, "tokens": {}}
    )
    _check_the_check(work, pair, options.rounds)
    of_tokens = [
        _rival(work, name, rival) for name, rival in rivals.items() if name != "regenerate"
    ]
    if of_tokens:
        lockstep = Contender("lockstep", lambda seed: work.lockstep(pair, UNLIMITED, seed), tokens)
        _compare(result, lockstep, of_tokens, work, options.rounds, ("us a token", 1e6))
    if "regenerate" in rivals:
        sweep = Contender("sweep", lambda seed: work.lockstep(pair, CURVE, seed), curves)
        regenerate = _regenerate(work, rivals["regenerate"])
        _compare(result, sweep, [regenerate], work, options.rounds, ("ms a curve", 1e3))
    return result


def _rival(work: Work, name: str, rival: Any) -> Contender:
    ask = work.ask(NUM_SEQUENCES[name], None)
    _warm_up(rival, ask)
    return Contender(name, lambda seed: {None: ray.get(rival.respond.remote(ask, seed))}, tokens)


def _regenerate(work: Work, rival: Any) -> Contender:
    ask = work.ask(NUM_SEQUENCES["regenerate"], LAST_BUDGET)
    _warm_up(rival, replace(ask, budget=1))
    return Contender("regenerate", lambda seed: ray.get(rival.curve.remote(ask, seed)), curves)


def _warm_up(rival: Any, ask: Ask) -> None:
    ray.get(rival.respond.remote(replace(ask, max_tokens=4), 0))


def _check_the_check(work: Work, pair: LeaseRunner, rounds: int) -> None:
    """Warm the pair up; what it makes without interventions must not pass for what it makes with
    them.
    """
    with_ = Contender("with", lambda seed: work.lockstep(pair, UNLIMITED, seed), tokens)
    without = Contender("without", lambda seed: {None: work.lockstep(pair, (0,), seed)[0]}, tokens)
    for round_ in range(rounds):
        with_.take_turn(-1 - round_)
        without.take_turn(-1 - rounds - round_)
    p = p_value(with_, without, work.problems)
    assert p < MIN_P, (
        f"the check takes responses without interventions for the same (p = {p}): more --rounds"
    )


def _compare(
    result: Result,
    ours: Contender,
    theirs: list[Contender],
    work: Work,
    rounds: int,
    unit: tuple[str, float],
) -> None:
    """The rounds of ours against theirs, into the result. unit: what a number of them is called,
    and its size.
    """
    everyone = [ours, *theirs]
    for round_ in range(rounds):
        for place in range(len(everyone)):
            everyone[(round_ + place) % len(everyone)].take_turn(round_)
    for one in everyone:
        result.measured[f"{one.name}, {unit[0]}"] = spread(
            [unit[1] * seconds for seconds in one.seconds]
        )
        result.details["sequences"][one.name] = curves(one.made[0])
        result.details["tokens"][one.name] = sum(map(tokens, one.made))
    for one in theirs:
        result.ratios[f"{ours.name} over {one.name}"] = speed_up(ours.seconds, one.seconds)
        result.details["p"][one.name] = p_value(ours, one, work.problems)


def tables(result: Result) -> Iterator[Table]:
    """The result for a reader."""
    ratios = {name.split(" over ")[1]: found for name, found in result.ratios.items()}
    left_out = "".join(
        f"\n{name} left out: {reason}" for name, reason in result.details["left out"].items()
    )
    shown = Table(
        "", "", "min-max", "slower than ours", "min-max", "p of the same", "sequences a round"
    )
    shown.caption = machine() + left_out
    for label, found in result.measured.items():
        name = label.partition(",")[0]
        ratio = row(ratios[name], ".2f") if name in ratios else ("", "")
        p = result.details["p"].get(name)
        shown.add_row(
            label,
            *row(found),
            *ratio,
            "" if p is None else f"{p:.4f}",
            str(result.details["sequences"][name]),
        )
    yield shown


def _plan(options: argparse.Namespace) -> Plan:
    settings = {"device": options.device, "share_gpu": options.device == "cuda", "out": "unused"}
    settings |= {
        "direction": "forward",
        "budget": "unlimited",
        "samples": SAMPLES,
        "max_num_seqs": options.batch,
    }
    config = load(None, settings)
    return prepare(config, load_task(config))


def _names(listed: str) -> list[str]:
    names = [name for name in listed.split(",") if name]
    if unknown := [name for name in names if name not in NUM_SEQUENCES]:
        raise argparse.ArgumentTypeError(
            f"unknown: {', '.join(unknown)}; there are {', '.join(NUM_SEQUENCES)}"
        )
    return names


def _options() -> argparse.Namespace:
    parser = common_options(__doc__, rounds=3)
    parser.add_argument(
        "--rivals",
        type=_names,
        default=["per_token", "per_token_by_default", "transformers", "http"],
    )
    parser.add_argument(
        "--curve", action="store_true", help="also budgets 0 to 8, against regenerate"
    )
    parser.add_argument("--batch", type=int, default=64, help="slots of lock-step")
    parser.add_argument("--sequences", type=int, default=64, help="that lock-step makes a round")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
