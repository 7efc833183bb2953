"""How much of the slots do long runs use? A model: responses of given lengths, shared out in
leases, on several pairs.

    python -m benchmarks.slots [--json FILE]

A step is one token of every slot that is taken; a slot that comes free takes the next response of
its pair's lease; a pair that is through takes the next lease. Prefill and solo phases are left out,
and all pairs are equally fast. So ways to share out work can be compared without an engine, for
lengths that the embedded pair does not have: `as it is` asks `engine.run.scheduler`, the others are
named by what they do, with most responses a slot in a lease.
"""

from __future__ import annotations

import argparse
import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, product
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from benchmarks.result import Result
from engine.arrays import Ints
from engine.run.scheduler import lease_size


class Leases(NamedTuple):
    """How work is shared out. size: of a lease, by (responses that wait, pairs, slots); by_round:
    equal ones for all pairs before it is asked again, else it is asked for every lease.
    """

    size: Callable[[int, int, int], int]
    by_round: bool

    def sizes(self, waiting: int, num_pairs: int, slots: int) -> Iterator[int]:
        """Responses of every lease."""
        while waiting > 0:
            size = self.size(waiting, num_pairs, slots)
            for _ in range(num_pairs if self.by_round else 1):
                yield max(0, min(size, waiting))
                waiting -= size


def guided(most: int) -> Leases:
    """Guided self-scheduling: half a pair's share of what waits, between one and `most` responses a
    slot.
    """

    def size(waiting: int, num_pairs: int, slots: int) -> int:
        share = ceil(waiting / (2 * num_pairs if num_pairs > 1 else 1))
        return min(max(share, slots), most * slots)

    return Leases(size, by_round=False)


def factoring(part: float, most: int) -> Leases:
    """The project's rule with other numbers: equal leases of `part` of what waits, of at most
    `most` a slot.
    """
    return Leases(partial(lease_size, part=part, max_groups=most), by_round=True)


def steps_of(lengths: Iterable[int], slots: int) -> int:
    """Steps to make these, in their order, each in the slot that is free first (list
    scheduling).
    """
    free_at = [0] * slots
    for tokens in lengths:
        heapq.heapreplace(free_at, free_at[0] + tokens)
    return max(free_at)


def share_used(lengths: Sequence[int], slots: int, num_pairs: int, leases: Leases) -> float:
    """The share of slot-steps that make a token: pairs take leases from one queue, each when its
    last is through.
    """
    waiting = iter(lengths)
    free_at = [0] * num_pairs
    for size in leases.sizes(len(lengths), num_pairs, slots):
        if size:
            heapq.heapreplace(free_at, free_at[0] + steps_of(islice(waiting, size), slots))
    return sum(lengths) / (max(free_at) * slots * num_pairs)


def share_used_without_leases(lengths: Sequence[int], slots: int, num_pairs: int) -> float:
    """The same where every slot that comes free takes the next response: the bound of all leases,
    in this order.
    """
    return sum(lengths) / (steps_of(lengths, slots * num_pairs) * slots * num_pairs)


def reasoning_lengths(
    number: int, mean: float = 4_000, cap: int = 8_000, samples: int = 64, seed: int = 0
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


def longest_first(lengths: Ints, error: float = 0.0, seed: int = 0) -> Ints:
    """In the order of an estimate that is off by a lognormal factor, whose logarithm deviates by
    `error`.
    """
    estimate = lengths * np.exp(
        error * np.random.default_rng((seed, 1)).standard_normal(len(lengths))
    )
    return lengths[np.argsort(-estimate, kind="stable")]


# Responses, pairs and slots of the runs, and medians over so many draws of lengths.
WORK_LISTS = (
    (1_920, 1, 64),
    (7_680, 1, 64),
    (1_920, 2, 64),
    (7_680, 4, 64),
    (61_440, 8, 64),
    (61_440, 8, 256),
)
SEEDS = 3
LEASES = {
    "as it is": Leases(lease_size, by_round=True),
    "guided, most 16": guided(16),
    "0.5, most 32": factoring(0.5, 32),
    "0.9, most 128": factoring(0.9, 128),
    "one a pair": factoring(1.0, 10**9),
}
ORDERS: dict[str, Callable[[Ints], Ints]] = {
    "by problem": lambda lengths: lengths,
    "longest first": lambda lengths: longest_first(lengths, error=0.35),
}


def main() -> None:
    """Model all of it, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, help="where the result is written")
    options = parser.parse_args()
    found = model()
    Result("slots", {"draws": SEEDS}, details={"model": found}).publish(
        [model_table(found)], options.json
    )


def model() -> list[dict[str, Any]]:
    """The share of the slots that long runs would use, as leases are shared out now, and as they
    might be.
    """
    found = []
    for (responses, num_pairs, slots), (order, ordered) in product(WORK_LISTS, ORDERS.items()):
        lengths = [
            ordered(reasoning_lengths(responses, seed=seed)).tolist() for seed in range(SEEDS)
        ]
        shares = {
            name: median(share_used(one, slots, num_pairs, leases) for one in lengths)
            for name, leases in LEASES.items()
        }
        shares["no leases"] = median(
            share_used_without_leases(one, slots, num_pairs) for one in lengths
        )
        found.append(
            {
                "responses": responses,
                "pairs": num_pairs,
                "slots": slots,
                "order": order,
                "used": shares,
            }
        )
    return found


def model_table(found: list[dict[str, Any]]) -> Table:
    """The model, for a reader."""
    shown = Table("responses", "pairs", "slots", "order", *found[0]["used"])
    shown.caption = (
        "modelled: share of slot-steps used; lengths 4,000 on average, at most 8,000; longest: as"
        " estimated"
    )
    for one in found:
        names = (f"{one['responses']:,}", str(one["pairs"]), str(one["slots"]), one["order"])
        shown.add_row(*names, *(f"{share:.1%}" for share in one["used"].values()))
    return shown


if __name__ == "__main__":
    main()
