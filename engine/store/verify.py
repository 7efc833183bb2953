"""Whether every expected trajectory of a run is there, once and whole.

Parts are read one at a time: memory holds the keys of all trajectories, but the tokens of only one
part. A tokens part and the responses part of the same number were committed together, so the token
rows of a trajectory are counted in its own part.
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
    """How the trajectories that a run holds differ from those that it should hold."""

    num_expected: int
    """Trajectories of the whole run."""
    num_tokens: int
    """Tokens of all responses in parts that are readable and of this run."""
    missing: tuple[Trajectory, ...]
    """Expected trajectories that are not there."""
    double: tuple[Trajectory, ...]
    """Trajectories that are there more than once."""
    unexpected: tuple[Trajectory, ...]
    """Trajectories that are there but not expected."""
    miscounted: tuple[Trajectory, ...]
    """Trajectories whose token rows are not the positions 0 ... tokens - 1, each once."""
    unreadable: tuple[Path, ...]
    """Files that cannot be decoded; the trajectories of their parts count as missing."""
    foreign: tuple[Path, ...] = ()
    """Files that belong to another run; the trajectories of their parts do not count."""
    failed: tuple[str, ...] = ()
    """A line for each missing trajectory that was given up after repeated failures."""

    @property
    def complete(self) -> bool:
        """Whether nothing is wrong."""
        faults = (
            self.missing,
            self.double,
            self.unexpected,
            self.miscounted,
            self.unreadable,
            self.foreign,
        )
        return not any(faults)


def verify_run(run: RunReader) -> Verification:
    """Compare the trajectories of a run with those that its manifest expects.

    Args:
        run: The run; all its files are read.

    Raises:
        RunDirectoryError: run.json does not say which trajectories are expected.
    """
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
    """Trajectory -> its number of token rows, or -1 if positions are missing or repeated."""
    rows = pq.read_table(tokens, columns=[*TRAJECTORY_KEY, "position"], partitioning=None)
    aggregates = [("position", name) for name in ("count", "count_distinct", "min", "max")]
    whole = {}
    for row in rows.group_by(list(TRAJECTORY_KEY)).aggregate(aggregates).to_pylist():
        count = row["position_count"]
        is_whole = (
            row["position_count_distinct"] == count == row["position_max"] + 1
            and row["position_min"] == 0
        )
        whole[Trajectory(*(row[name] for name in TRAJECTORY_KEY))] = count if is_whole else -1
    return whole
