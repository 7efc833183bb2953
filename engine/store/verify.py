"""Is every expected trajectory of a run there, once, whole? Reads part by part, so memory does not
grow with the run.

A tokens part and the responses part of the same number were committed together: the rows of a
trajectory are counted against its own part.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from engine.core import TRAJECTORY_KEY, Trajectory
from engine.store.parts import foreign_parts
from engine.store.run_reader import RunReader


@dataclass(frozen=True, slots=True)
class Verification:
    """What a run should hold and what it holds.

    double:     trajectories that are there more than once
    unexpected: trajectories that this run does not ask for
    miscounted: trajectories whose token rows are not the positions 0 ... tokens - 1, each once
    unreadable: parts that cannot be decoded; their trajectories count as missing
    foreign:    parts that belong to another run; their trajectories do not count
    failed:     those missing that were given up, after failing again and again
    """

    num_expected: int
    num_tokens: int
    missing: tuple[Trajectory, ...]
    double: tuple[Trajectory, ...]
    unexpected: tuple[Trajectory, ...]
    miscounted: tuple[Trajectory, ...]
    unreadable: tuple[Path, ...]
    foreign: tuple[Path, ...] = ()
    failed: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is wrong."""
        wrong = (
            self.missing,
            self.double,
            self.unexpected,
            self.miscounted,
            self.unreadable,
            self.foreign,
        )
        return not any(wrong)


def verify_run(run: RunReader) -> Verification:
    """Compare the run with what its manifest expects."""
    unreadable, foreign = run.unreadable(), tuple(foreign_parts(run.path, run.fingerprint))
    failures = [] if run.path / "failures.parquet" in unreadable else run.failures()
    num_copies: Counter[Trajectory] = Counter()
    miscounted: list[Trajectory] = []
    num_tokens = 0
    bad = {file.name for file in [*unreadable, *foreign]}
    for part in (part for part in run.parts() if part.name not in bad):
        lengths = _lengths(part.responses)
        num_copies.update(_keys(part.responses))
        num_tokens += sum(lengths.values())
        whole = _whole(part.tokens)
        miscounted += [
            key for key, length in lengths.items() if length and whole.get(key) != length
        ]
        miscounted += [key for key in whole if key not in lengths]
    expected = run.expected()
    return Verification(
        num_expected=len(expected),
        num_tokens=num_tokens,
        missing=tuple(key for key in expected if key not in num_copies),
        double=tuple(key for key, count in num_copies.items() if count > 1),
        unexpected=tuple(num_copies.keys() - expected.keys()),
        miscounted=tuple(miscounted),
        unreadable=tuple(unreadable),
        foreign=foreign,
        failed=tuple(
            f"{f.key}, {f.attempts} times: {f.error}" for f in failures if f.key not in num_copies
        ),
    )


def _keys(part: Path) -> list[Trajectory]:
    rows = pq.read_table(part, columns=list(TRAJECTORY_KEY), partitioning=None).to_pylist()
    return [Trajectory(**row) for row in rows]


def _lengths(responses: Path) -> dict[Trajectory, int]:
    rows = pq.read_table(
        responses, columns=[*TRAJECTORY_KEY, "tokens"], partitioning=None
    ).to_pylist()
    return {Trajectory(*(row[name] for name in TRAJECTORY_KEY)): row["tokens"] for row in rows}


def _whole(tokens: Path) -> dict[Trajectory, int]:
    """Trajectory -> its number of token rows, or -1 where positions are missing or doubled."""
    rows = pq.read_table(tokens, columns=[*TRAJECTORY_KEY, "position"], partitioning=None)
    measured = [("position", name) for name in ("count", "count_distinct", "min", "max")]
    whole = {}
    for row in rows.group_by(list(TRAJECTORY_KEY)).aggregate(measured).to_pylist():
        count = row["position_count"]
        is_whole = (
            row["position_count_distinct"] == count == row["position_max"] + 1
            and row["position_min"] == 0
        )
        whole[Trajectory(*(row[name] for name in TRAJECTORY_KEY))] = count if is_whole else -1
    return whole
