"""A run directory of any size without a model: what `xsample report` reads, filled with made-up
measurements.

    python -m benchmarks.synthetic OUT [--rows 100_000_000] [--seed 0] [--processes 2]

Problems x samples x both directions, unlimited budget, every token measured by both policies.
Lengths are lognormal, capped; what stands in a row is in benchmarks/synthetic_tokens.py. Equal
arguments make equal files, whatever the number of processes.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.synthetic_tokens import (
    EOS,
    THRESHOLD,
    TOP_K,
    TOP_P,
    VOCABULARY_SIZE,
    Columns,
    token_columns,
)
from engine.arrays import Bools, Ints
from engine.core import Grade, Problem, Trajectory
from engine.store.run_store import ROWS_PER_GROUP, RunStore
from engine.store.schema import RESPONSES, TOKENS
from engine.store.tables import conform, write_table
from engine.system.machine import usable_cores

DIRECTIONS = ("forward", "reverse")
PROBLEMS = tuple(
    Problem(f"synthetic/{n:02d}", f"What is {n} + {n}?", str(2 * n)) for n in range(30)
)
MEDIAN_LENGTH, SPREAD, MAX_LENGTH = 1_500, 0.6, 8_000
ROWS_PER_PART = 1 << 18
PROMPT = list(range(100, 150))


@dataclass(frozen=True, slots=True)
class Part:
    """Trajectories of one part: indices into problems x samples x directions, and their lengths in
    tokens, [T] each.
    """

    number: int
    trajectory: Ints
    length: Ints


def make_run(out: Path, rows: int, seed: int = 0, processes: int = 1) -> None:
    """Make the run directory `out`, which must be new, with `rows` token rows. Raises
    RunDirectoryError.
    """
    length = lengths(rows, seed)
    num_samples = len(length) // (len(PROBLEMS) * len(DIRECTIONS))
    with RunStore.open(out, _manifest(num_samples, seed)) as store:
        store.write_problems(PROBLEMS, gated=False)
        store.write_vocabulary(vocabulary)
        write = partial(_write_part, out, seed, num_samples)
        with ProcessPoolExecutor(processes, get_context("forkserver")) as pool:
            list(pool.map(write, parts(length)))
        store.write_grades(_grades(num_samples, seed))


def lengths(rows: int, seed: int) -> Ints:
    """Length of each trajectory, problem by problem: as many samples as `rows` needs, scaled to
    just that many.
    """
    shape = (
        1 + rows // (len(PROBLEMS) * len(DIRECTIONS) * MEDIAN_LENGTH),
        len(PROBLEMS),
        len(DIRECTIONS),
    )
    drawn = np.minimum(
        np.random.default_rng(seed).lognormal(np.log(MEDIAN_LENGTH), SPREAD, shape), MAX_LENGTH
    )
    num_samples = 1 + int(np.searchsorted(drawn.sum((1, 2)).cumsum()[:-1], rows))
    ends = drawn[:num_samples].swapaxes(0, 1).ravel().cumsum()
    return np.diff(np.rint(ends * (rows / ends[-1])).astype(np.int64), prepend=0)


def parts(length: Ints) -> list[Part]:
    """All trajectories, about ROWS_PER_PART rows a part."""
    part = (length.cumsum() - 1) // ROWS_PER_PART
    bounds = np.flatnonzero(np.diff(part, prepend=-1, append=part[-1] + 1))
    return [
        Part(number, np.arange(start, stop), length[start:stop])
        for number, (start, stop) in enumerate(pairwise(bounds.tolist()))
    ]


def vocabulary() -> list[str]:
    """A text a token: words, most of them with the blank before them, as byte-pair vocabularies
    have them.
    """
    syllables = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    words = ("".join(word) for size in (1, 2, 3) for word in product(syllables, repeat=size))
    texts = [
        f" {word}" if place % 4 else word
        for place, word in zip(range(VOCABULARY_SIZE), words, strict=False)
    ]
    return [*texts[:EOS], "<eos>"]


def _write_part(out: Path, seed: int, num_samples: int, part: Part) -> None:
    """The tokens part, then its responses part."""
    rng = np.random.default_rng((seed, part.number))
    row = np.repeat(np.arange(len(part.length)), part.length)
    ends = part.length.cumsum()
    position = np.arange(len(row)) - (ends - part.length)[row]
    stopped = part.length < MAX_LENGTH - 1  # rounding may take one off
    keys = _keys(part.trajectory, num_samples)
    last = (position == part.length[row] - 1) & stopped[row]
    forward = (part.trajectory % len(DIRECTIONS) == 0)[row]
    columns = token_columns(rng, position / part.length[row], last, forward)
    of_rows = {name: column.take(pa.array(row)) for name, column in keys.items()}
    tokens = pa.table(of_rows | {"position": pa.array(position.astype(np.int32))} | columns)
    responses = _responses(keys, columns, np.append(0, ends), stopped, seed)
    for folder, table, schema in (("tokens", tokens, TOKENS), ("responses", responses, RESPONSES)):
        target = out / folder / f"part-{part.number:06d}.parquet"
        write_table(target, conform(table, schema), ROWS_PER_GROUP[folder])


def _keys(trajectory: Ints, num_samples: int) -> dict[str, pa.Array]:
    """The key columns of these trajectories, [T]."""
    problem, sample, direction = np.unravel_index(
        trajectory, (len(PROBLEMS), num_samples, len(DIRECTIONS))
    )
    return {
        "problem": pa.array([one.id for one in PROBLEMS]).take(pa.array(problem)),
        "sample": pa.array(sample.astype(np.int32)),
        "direction": pa.array(DIRECTIONS).take(pa.array(direction)),
        "budget": pa.nulls(len(trajectory), pa.int32()),
    }


def _responses(
    keys: dict[str, pa.Array], columns: Columns, offsets: Ints, stopped: Bools, seed: int
) -> pa.Table:
    """Rows of record.RESPONSES; the response `i` has the rows offsets[i] to offsets[i + 1] of
    `columns`.
    """
    size = len(stopped)
    text = pa.array([*vocabulary()[:EOS], ""]).take(pa.array(columns["token"]))
    counts = {
        name: np.add.reduceat(columns[name], offsets[:-1], dtype=np.int32)
        for name in ("intervened", "effective")
    }
    made = {
        "prompt_token_ids": pa.array([PROMPT] * size, pa.list_(pa.int32())),
        "token_ids": pa.ListArray.from_arrays(offsets.astype(np.int32), pa.array(columns["token"])),
        "tokens": np.diff(offsets).astype(np.int32),
        "text": pc.binary_join(pa.ListArray.from_arrays(offsets.astype(np.int32), text), ""),
        "finish_reason": np.where(stopped, "stop", "length"),
        "interventions": counts["intervened"],
        "effective_interventions": counts["effective"],
        "forked_from": pa.nulls(size, pa.int32()),
        "seed": np.full(size, seed),
    }
    return pa.table(keys | made)


def _grades(num_samples: int, seed: int) -> list[Grade]:
    """Verdicts: harder problems come later, and forward solves more."""
    rng = np.random.default_rng((seed, num_samples, 1))
    grades = []
    for place, problem in enumerate(PROBLEMS):
        for sample, direction in product(range(num_samples), DIRECTIONS):
            correct = bool(
                rng.random()
                < (0.8 if direction == "forward" else 0.4) * (1 - place / len(PROBLEMS))
            )
            answer = problem.answer if correct else "-1"
            key = Trajectory(problem.id, sample, direction, None)
            grades.append(
                Grade(key, answer, None, "boxed", "correct" if correct else "wrong", correct)
            )
    return grades


def _manifest(num_samples: int, seed: int) -> dict[str, Any]:
    """A run.json like that of `xsample run`, as far as readers of a run look into it."""
    settings = {
        "task": "synthetic",
        "samples": num_samples,
        "direction": "both",
        "budget": [None],
        "criterion": "js",
        "threshold": THRESHOLD,
        "temperature": 1.0,
        "top_p": TOP_P,
        "top_k": 0,
        "max_tokens": MAX_LENGTH,
        "seed": seed,
        "record_threshold": THRESHOLD,
        "record_top_k": TOP_K,
    }
    return {
        "identity": settings
        | {"base": "synthetic base", "rl": "synthetic rl", "stop_token_ids": [EOS]},
        "config": settings,
        "task": {
            "name": "synthetic",
            "source": "made up",
            "gated": False,
            "template": None,
            "grader": "integer",
        },
        "models": {"base": "synthetic/base", "rl": "synthetic/rl", "stop_token_ids": [EOS]},
        "expected": {
            "problems": [problem.id for problem in PROBLEMS],
            "samples": num_samples,
            "directions": DIRECTIONS,
            "budgets": [None],
        },
        "versions": {},
        "created": "2026-01-01T00:00:00+00:00",
    }


def main() -> None:
    """Make the run, say how long it took."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=usable_cores())
    options = parser.parse_args()
    began = time.perf_counter()
    make_run(options.out, options.rows, options.seed, options.processes)
    print(f"{options.rows:,} token rows in {options.out}, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
