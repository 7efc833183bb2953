"""How long would a run take on other machines, and how full are its slots? Modelled, without a
cluster.

    python -m benchmarks.simulate [--model 32b] [--gpu H100] [--gpus 8] [--tensor-parallel-size 4]
        [--responses 960] [--mean-length 4000] [--max-tokens 8000] [--lengths FILE]
        [--direction reverse] [--budget 8] [--positions 1,27] [--slots 64]
        [--lease-part 0.9] [--lease-groups 32] [--longest-first]
    python -m benchmarks.simulate --validate

The scheduler and the staging of leases are the project's own; the engines are modelled
(`benchmarks.modelled`), their steps take what the plan's roofline says (`engine.models.roofline`).
--gpus and --model take several values. --positions: the parameters of the beta distribution of an
intervention's place in its response; with 8 of them 1,27 spends the budget in the first tenth.
--lengths: tokens of a response, a number a line, drawn from with replacement. Every run is
simulated with idle engines that load their twin's weights and help, and without (--no-idle-helps).

--validate makes real runs of the embedded pair beside their simulation: `benchmarks.validation`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from rich.table import Table

from benchmarks.modelled import (
    Clock,
    ModelledEngines,
    Response,
    Speed,
    modelled_runner,
)
from benchmarks.models import SHAPES, Shape, num_weights
from benchmarks.result import Result
from engine.arrays import Ints
from engine.config.switching import parse_budget
from engine.core import DIRECTIONS, POLICIES, PRIMARY, Problem, Task
from engine.lockstep.engine_pair import PairConfig
from engine.lockstep.job import Job
from engine.models.devices import gpu
from engine.models.roofline import EngineLoad, PairRoofline
from engine.run import scheduler
from engine.run.placement import pair_config
from engine.run.plan import prepare
from engine.run.scheduler import Done, GivenUp, Scheduler
from engine.run.settings import load
from engine.sampling.rule import Rule

# 14b is Qwen2.5's, 70b Llama 3's.
MODELS: Mapping[str, Shape] = {
    **SHAPES,
    "14b": Shape(152_064, 5120, 13_824, 48, 40, 8, tie_word_embeddings=False, on_disk=False),
    "70b": Shape(128_256, 8192, 28_672, 80, 64, 8, tie_word_embeddings=False, on_disk=False),
}
RANKS = {"14b": 2, "32b": 4, "70b": 4}
"""GPUs of an engine, where the user gives none; 1 for the others."""
_DTYPE_BYTES = 2
_LOADING = 5e9  # bytes of weights a second, onto each GPU
_MAX_ROWS = 1_000_000  # of all responses together; a row stands for as many tokens as that takes
_EFFECTIVE = 0.5  # the part of the interventions that change the token, as on the embedded pair


@dataclass(frozen=True)
class Machine:
    """GPUs, and the model of both engines of each pair on them. loading: bytes a second and GPU."""

    model: str
    gpu: str
    num_gpus: int
    ranks: int
    slots: int
    loading: float

    @property
    def num_pairs(self) -> int:
        return max(1, self.num_gpus // (len(POLICIES) * self.ranks))

    def speed(self, prompt_tokens: float) -> Speed:
        """How fast a pair is; on one GPU both engines share it."""
        shape = MODELS[self.model]
        device = gpu(self.gpu, _DTYPE_BYTES, self.ranks)
        assert device, f"no figures of {self.gpu}"
        weights = num_weights(shape)
        kv_token = 2 * shape.num_hidden_layers * shape.num_key_value_heads * _head_size(shape)
        whole = EngineLoad(weights * _DTYPE_BYTES, kv_token * _DTYPE_BYTES, 2.0 * weights)
        each = whole.divided(self.ranks)
        roofline = PairRoofline(dict.fromkeys(POLICIES, each), device, self.num_gpus == 1)
        return Speed(roofline, roofline, prompt_tokens, switch_s=each.weight_bytes / self.loading)


class Workload(NamedTuple):
    """Jobs in the order of the queue, and what comes out of each (noise key, forward). grain:
    tokens of a row.
    """

    jobs: list[Job]
    responses: dict[tuple[int, bool], Response]
    grain: int

    @property
    def num_tokens(self) -> int:
        return self.grain * sum(response.length for response in self.responses.values())


class Simulated(NamedTuple):
    """A run: wall time and, of all slot-seconds, those that computed a sequence, were empty in a
    phase, and passed while weights were loaded; the rest is idle. steps: of all engines.
    """

    seconds: float
    used: float
    tail: float
    switching: float
    leases: int
    steps: float

    @property
    def idle(self) -> float:
        return 1 - self.used - self.tail - self.switching


def simulate(
    workload: Workload,
    speed: Speed,
    slots: int,
    num_pairs: int = 1,
    helps: bool = False,
) -> Simulated:
    """Carry the jobs out, on the project's scheduler and lease runners and modelled engines."""
    clock, config = Clock(num_pairs), _config(speed, slots)
    speed = replace(speed, grain=workload.grain)
    engines = [
        ModelledEngines(speed, workload.responses, slots, clock, pair, helps)
        for pair in range(num_pairs)
    ]
    runners = [modelled_runner(config, one) for one in engines]
    carried = Scheduler(runners, workload.jobs, Rule(), slots)
    num_done = 0
    try:
        for event in carried.events():
            assert not isinstance(event, GivenUp), event
            num_done += len(event.completed.job) if isinstance(event, Done) else 0
    finally:
        carried.close()
    assert num_done == len(workload.jobs), f"{num_done} of {len(workload.jobs)} came out"
    seconds = max(clock.now)
    whole = seconds * slots * num_pairs * len(POLICIES)
    parts = [one for pair in engines for one in pair.engines.values()]
    return Simulated(
        seconds,
        sum(one.used for one in parts) / whole,
        sum(one.empty for one in parts) / whole,
        slots * sum(one.switching for one in parts) / whole,
        sum(pair.num_leases for pair in engines),
        sum(one.num_steps for one in parts),
    )


def _config(speed: Speed, slots: int) -> PairConfig:
    """That of a pair that is never started: its stop token, slots and weights are asked for."""
    task = Task("none", (Problem("none", "1+1=?", "2"),), "{question}", 1, 8)
    settings = {"device": "cpu", "max_num_seqs": slots, "out": "unused"}
    config = pair_config(prepare(load(None, settings), task), 0)
    return replace(config, weight_bytes=int(speed.switch_s * _LOADING))


def reasoning_lengths(
    number: int, mean: float = 4_000, cap: int = 8_000, samples: int = 32, seed: int = 0
) -> Ints:
    """Lengths as reasoning models have them, problem by problem: lognormal between problems and
    between samples.

    mean: before they are cut at the cap.
    """
    between, within = 0.5, 0.35
    rng = np.random.default_rng(seed)
    problem = np.repeat(rng.standard_normal(-(-number // samples)), samples)[:number]
    drawn = between * problem + within * rng.standard_normal(number) - (between**2 + within**2) / 2
    return np.clip(mean * np.exp(drawn), 1, cap).astype(np.int64)


def lengths_of_file(file: Path, number: int, cap: int, seed: int) -> Ints:
    """So many lengths, drawn from a file with a number a line."""
    drawn = np.random.default_rng(seed).choice(np.loadtxt(file, ndmin=1), number)
    return np.clip(drawn, 1, cap).astype(np.int64)


def longest_first(lengths: Ints, error: float = 0.35, seed: int = 0) -> Ints:
    """In the order of an estimate that is off by a lognormal factor, whose logarithm deviates by
    `error`.
    """
    noise = np.random.default_rng((seed, 1)).standard_normal(len(lengths))
    return lengths[np.argsort(-lengths * np.exp(error * noise), kind="stable")]


def make_workload(
    lengths: Ints,
    directions: Sequence[str],
    budgets: Sequence[int | None],
    positions: tuple[float, float],
    seed: int = 0,
) -> Workload:
    """Responses of these lengths in each direction, with all budgets each; their interventions lie
    where a beta distribution says.
    """
    rng = np.random.default_rng((seed, 2))
    grain = max(1, -(-int(lengths.sum()) * len(directions) // _MAX_ROWS))
    most = max((budget for budget in budgets if budget is not None), default=8)
    jobs, responses = [], {}
    for key, length in enumerate(lengths.tolist()):
        for direction in directions:
            forward, rows = PRIMARY[direction] == "base", -(-length // grain)
            taken = np.sort(rng.beta(*positions, most) * rows).astype(np.int64)
            taken = np.maximum.accumulate(taken - np.arange(most)) + np.arange(most)
            taken = taken[taken < rows]  # one row cannot hold two
            responses[key, forward] = Response(rows, taken, rng.random(len(taken)) < _EFFECTIVE)
            jobs += [Job([0], key, forward, budget, rows) for budget in budgets]
    return Workload(jobs, responses, grain)


def _head_size(shape: Shape) -> int:
    return shape.hidden_size // shape.num_attention_heads


def main() -> None:
    """Simulate all of it, print the table; or validate the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    _add_options(parser)
    options = parser.parse_args()
    if options.validate:
        from benchmarks.validation import validate

        validate(options.rounds, options.json)
        return
    found = list(_simulations(options))
    settings = {name: str(value) for name, value in vars(options).items() if name != "json"}
    Result("simulate", settings, details={"simulated": found}).publish(
        [_table(found)], options.json
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", nargs="+", choices=MODELS, default=["32b"])
    parser.add_argument("--gpu", default="H100", help="as torch names it, or a part of that")
    parser.add_argument("--gpus", nargs="+", type=int, default=[8])
    parser.add_argument("--tensor-parallel-size", type=int, help="default: by the model")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--responses", type=int, default=960, help="of each direction")
    parser.add_argument("--mean-length", type=float, default=4_000)
    parser.add_argument("--max-tokens", type=int, default=8_000)
    parser.add_argument("--prompt-tokens", type=int, default=200)
    parser.add_argument("--lengths", type=Path)
    parser.add_argument("--longest-first", action="store_true")
    parser.add_argument("--direction", choices=(*DIRECTIONS, "both"), default="reverse")
    parser.add_argument("--budget", type=parse_budget, default=(8,))
    parser.add_argument("--positions", type=_two_numbers, default=(1.0, 27.0))
    parser.add_argument(
        "--loading-gb-s", type=float, default=_LOADING / 1e9, help="weights, of each GPU"
    )
    parser.add_argument("--lease-part", type=float, default=scheduler.PART)
    parser.add_argument("--lease-groups", type=int, default=scheduler.MAX_GROUPS)
    parser.add_argument("--draws", type=int, default=3, help="of lengths; medians over them")
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--rounds", type=int, default=5, help="of --validate")
    parser.add_argument("--json", type=Path, help="where the result is written")


def _two_numbers(text: str) -> tuple[float, float]:
    first, second = map(float, text.split(","))
    return first, second


def _simulations(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every model on every number of GPUs, without and with the help of idle engines."""
    workloads = [_drawn(options, seed) for seed in range(options.draws)]
    lease_size = partial(
        scheduler.lease_size, part=options.lease_part, max_groups=options.lease_groups
    )
    for model, num_gpus in product(options.model, options.gpus):
        ranks = 1 if num_gpus == 1 else options.tensor_parallel_size or RANKS.get(model, 1)
        machine = Machine(
            model, options.gpu, num_gpus, ranks, options.slots, 1e9 * options.loading_gb_s
        )
        if num_gpus > 1 and num_gpus % (len(POLICIES) * ranks):
            raise SystemExit(f"{num_gpus} GPUs are no whole pairs of {ranks} GPUs an engine")
        speed = machine.speed(options.prompt_tokens)
        for helps in (False, True):
            with patch.object(scheduler, "lease_size", lease_size):
                runs = [
                    simulate(one, speed, options.slots, machine.num_pairs, helps)
                    for one in workloads
                ]
            parts = ("seconds", "used", "tail", "idle", "switching", "leases")
            yield asdict(machine) | {
                "pairs": machine.num_pairs,
                "tokens": median(one.num_tokens for one in workloads),
                "helps": helps,
                **{name: median(getattr(run, name) for run in runs) for name in parts},
            }


def _drawn(options: argparse.Namespace, seed: int) -> Workload:
    number, cap = options.responses, options.max_tokens
    if options.lengths:
        lengths = lengths_of_file(options.lengths, number, cap, seed)
    else:
        lengths = reasoning_lengths(number, options.mean_length, cap, seed=seed)
    if options.longest_first:
        lengths = longest_first(lengths, seed=seed)
    directions = DIRECTIONS if options.direction == "both" else (options.direction,)
    return make_workload(lengths, directions, options.budget, options.positions, seed)


def _table(found: Sequence[dict[str, Any]]) -> Table:
    """The simulations, for a reader."""
    shown = Table(
        "model", "GPUs", "pairs", "idle helps", "wall, min", "GPU h", "used", "tail", "idle",
        "switching", "leases",
    )  # fmt: skip
    shown.caption = f"modelled: {found[0]['gpu']} by its data sheet; shares of slot-seconds"
    for one in found:
        minutes = one["seconds"] / 60
        shown.add_row(
            one["model"],
            str(one["num_gpus"]),
            str(one["pairs"]),
            "yes" if one["helps"] else "no",
            f"{minutes:.1f}",
            f"{one['num_gpus'] * minutes / 60:.2f}",
            *(f"{one[name]:.1%}" for name in ("used", "tail", "idle", "switching")),
            str(one["leases"]),
        )
    return shown


if __name__ == "__main__":
    main()
