"""Tables of trajectories to commit to a run directory, where only their keys matter.

Columns that a test does not name are null where they may be, else zero or a short text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.core import Trajectory
from engine.store.run_store import RunStore
from engine.store.schema import RESPONSES, TOKENS, expected_trajectories

# A small run, all trajectories that it asks for, and how many tokens `commit` gives each.
EXPECTED = {"problems": ["a", "b"], "samples": 2, "directions": ["forward"], "budgets": [1, None]}
KEYS = list(expected_trajectories(EXPECTED))
LENGTH = 3
# A run of trajectories that are named by `key`.
MANIFEST: dict[str, Any] = {
    "identity": {"base": "B", "seed": 0, "budget": [8, None]},
    "versions": {"vllm": "0.32"},
}


def commit(
    store: RunStore, keys: Iterable[Trajectory], positions: Iterable[int] = range(LENGTH)
) -> None:
    """Commit these trajectories as one part, with a token row for each of `positions`."""
    keys, positions = list(keys), list(positions)
    tokens = [key._asdict() | {"position": position} for key in keys for position in positions]
    responses = [key._asdict() | {"tokens": LENGTH} for key in keys]
    store.commit(fill(TOKENS, tokens), fill(RESPONSES, responses))


def tables(keys: Iterable[Trajectory], length: int = LENGTH) -> tuple[pa.Table, pa.Table]:
    """The token rows and the responses of these trajectories, `length` tokens each."""
    keys = list(keys)
    tokens = [
        key._asdict() | {"position": position, "token": position + 7}
        for key in keys
        for position in range(length)
    ]
    ids = {"prompt_token_ids": [1, 2], "token_ids": list(range(length))}
    return fill(TOKENS, tokens), fill(RESPONSES, [key._asdict() | ids for key in keys])


def fill(schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> pa.Table:
    """A table of `rows`, of which each may leave columns out."""
    blank = {field.name: None if field.nullable else _zero(field.type) for field in schema}
    return pa.Table.from_pylist([blank | row for row in rows], schema=schema)


def key(number: int = 0, budget: int | None = 8) -> Trajectory:
    """The trajectory of problem and sample `number`."""
    return Trajectory(f"p{number}", number, "forward", budget)


def hidden_files(run: Path) -> list[Path]:
    """What a writer has not finished in a run directory; its locks do not count."""
    return [file for file in run.rglob(".*") if not file.name.startswith(".lock")]


def _zero(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_string(kind):
        return "x"
    return False if pa.types.is_boolean(kind) else 0
