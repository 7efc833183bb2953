"""Small run directories with known arrays, for tests of what is measured on them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from engine.core import TRAJECTORY_KEY, Trajectory
from engine.store.run_store import RunStore
from engine.store.schema import RESPONSES, SCHEMA_VERSION, TOKENS, VOCABULARY
from engine.store.tables import from_rows, write_table
from evaluators.database.run_tables import RunTables, open_database, open_run

LN2 = float(np.float32(np.log(2)))
MANIFEST: dict[str, Any] = {
    "identity": {},
    "config": {"temperature": 1.0, "top_p": 0.7, "top_k": 0},
    "models": {"base": "base", "rl": "runs/global_step_100"},
}
# Forward and reverse, two budgets each; the arms that are looked at are the second ones.
ARMS = (("forward", 4), ("forward", None), ("reverse", 2), ("reverse", 8))


def trajectories(
    problems: int = 3, samples: int = 2, arms: Sequence[tuple[str, int | None]] = ARMS
) -> list[Trajectory]:
    return [
        Trajectory(f"p{p}", s, *arm)
        for p in range(problems)
        for s in range(samples)
        for arm in arms
    ]


def tokens_of(key: Trajectory, **columns: Any) -> pa.Table:
    """Rows of TOKENS of one trajectory: these columns, each as long as the response; the others 0,
    false or null.

    token is 0, 1, 2, ... unless given; without any column the response has no tokens.
    """
    length = len(next(iter(columns.values()), []))
    given = {name: [value] * length for name, value in key._asdict().items()} | columns
    given |= {"position": range(length)} | ({} if "token" in columns else {"token": range(length)})
    plain = {name: [None if TOKENS.field(name).nullable else 0] * length for name in TOKENS.names}
    values = plain | {name: [False] * length for name in ("intervened", "effective")} | given
    return pa.table(
        [_array(values[name], TOKENS.field(name).type) for name in TOKENS.names], TOKENS
    )


def random_tokens(key: Trajectory, rng: np.random.Generator, length: int) -> pa.Table:
    """Rows with everything in them: js exactly 0 and ln 2, a solo phase at the end, lists of many
    lengths or none.
    """
    js = rng.choice([0.0, LN2, 0.01, 0.1], length)
    js = np.where(
        rng.random(length) < 0.6, np.exp(rng.normal(-4, 3, length)).clip(0, LN2), js
    ).astype(np.float32)
    solo = np.arange(length) >= length * rng.uniform(0.5, 1.5)
    columns: dict[str, Any] = {"token": rng.integers(0, 60, length), "js": _nulled(js, solo)}
    for policy, other in (("base", "rl"), ("rl", "base")):
        rank = rng.geometric(0.25, length)
        columns |= {
            f"entropy_{policy}": rng.exponential(0.7, length).astype(np.float32),
            f"logp_{policy}": -rng.exponential(0.7, length).astype(np.float32)
            * (rng.random(length) < 0.9),
            f"top1_{policy}": rng.integers(0, 2, length),
            f"rank_{policy}_of_top1_{other}": _nulled(rank, solo),
            f"logp_{policy}_of_top1_{other}": _nulled(
                -rng.exponential(2, length).astype(np.float32), solo
            ),
            f"topk_{policy}": [
                _top_k(rng) if js[t] >= 0.1 and not solo[t] else None for t in range(length)
            ],
        }
    return tokens_of(key, **columns)


def random_run(path: Path, seed: int, num_parts: int = 3, longest: int = 120) -> Path:
    """A run of ARMS with `random_tokens`."""
    rng = np.random.default_rng(seed)
    tables = {key: random_tokens(key, rng, int(rng.integers(1, longest))) for key in trajectories()}
    return write_run(path, tables, num_parts=num_parts)


def write_run(
    path: Path,
    tokens: Mapping[Trajectory, pa.Table],
    manifest: Mapping[str, Any] = MANIFEST,
    num_parts: int = 1,
    vocabulary: Mapping[int, str] | None = None,
) -> Path:
    """A run directory with these tokens; their responses are made of them. The trajectories are
    dealt to the parts.
    """
    keys = list(tokens)
    with RunStore.open(path, dict(manifest)) as store:
        for part in range(num_parts if keys else 0):
            mine = keys[part::num_parts]
            store.commit(
                pa.concat_tables([tokens[key] for key in mine]),
                responses_of({k: tokens[k] for k in mine}),
            )
    if vocabulary is not None:
        write_table(
            path / "vocabulary.parquet", from_rows(list(vocabulary.items()), VOCABULARY), 1 << 10
        )
    return path


def responses_of(tokens: Mapping[Trajectory, pa.Table]) -> pa.Table:
    """Rows of RESPONSES that fit these tokens."""
    rows = [
        dict(zip(TRAJECTORY_KEY, key, strict=True))
        | {
            "prompt_token_ids": [1],
            "token_ids": table["token"].to_pylist(),
            "tokens": table.num_rows,
            "text": "",
            "finish_reason": "stop",
            "interventions": sum(table["intervened"].to_pylist()),
            "effective_interventions": sum(table["effective"].to_pylist()),
            "forked_from": None,
            "seed": 0,
        }
        for key, table in tokens.items()
    ]
    return pa.Table.from_pylist(rows, RESPONSES)


def set_version(run: Path, version: int) -> None:
    """Let run.json say that the run is of this schema version."""
    manifest = json.loads((run / "run.json").read_text())
    assert manifest["schema_version"] == SCHEMA_VERSION
    (run / "run.json").write_text(json.dumps(manifest | {"schema_version": version}))


@contextmanager
def opened(*paths: Path) -> Iterator[tuple[RunTables, ...]]:
    """These runs, called by their folders, in one database."""
    with open_database() as database:
        runs = [open_run(database, path, path.name).tables for path in paths]
        yield tuple(run for run in runs if run is not None)


def _top_k(rng: np.random.Generator) -> list[int] | None:
    length = int(rng.choice([0, 3, 5, 5, 5]))
    return None if rng.random() < 0.2 else rng.permutation(8)[:length].tolist()


def _nulled(values: np.ndarray[Any, Any], where: np.ndarray[Any, Any]) -> list[Any]:
    return [None if gone else value for value, gone in zip(values.tolist(), where, strict=True)]


def _array(values: Any, type_: pa.DataType) -> pa.Array:
    return pa.array(values.tolist() if isinstance(values, np.ndarray) else list(values), type_)
