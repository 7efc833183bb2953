"""Small run directories as `xsample run` and `score` leave them, with numbers that were drawn: for
tests of reports.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.core import Grade, Problem, Trajectory
from engine.run.match import fingerprint, read_match
from engine.store.run_store import RunStore
from engine.store.schema import RESPONSES, TOKENS

PROBLEMS = ("p0", "p1", "p2")
TEXTS = (" the", "\n", "1", "2", "=", " wait")
LENGTH = 12
QUESTION = "What is the secret question"


def make_run(
    path: Path,
    *,
    problems: Sequence[str] = PROBLEMS,
    samples: int = 2,
    directions: Sequence[str] = ("forward", "reverse"),
    budgets: Sequence[int | None] = (0, 2, None),
    config: dict[str, Any] | None = None,
    identity: dict[str, Any] | None = None,
    gated: bool = False,
    graded: bool = True,
    grader: str = "math",
    texts: Sequence[str] = TEXTS,
    rl: str = "models/rl",
    number: int = 0,
    missing: int = 0,
) -> Path:
    """Write a run, the last `missing` trajectories of it not there. `number`: of the draw of its
    numbers.
    """
    keys = [Trajectory(*key) for key in product(problems, range(samples), directions, budgets)]
    manifest = {
        "identity": {
            "base": "B",
            "rl": rl,
            "ids_answers_and_prompts": "x",
            "max_tokens": LENGTH,
            "seed": 0,
        }
        | {"temperature": 1.0, "top_p": 0.7, "top_k": 0}
        | (identity or {}),
        "config": {
            "criterion": "js",
            "threshold": 0.1,
            "match": None,
            "samples": samples,
            "seed": 0,
        }
        | {"temperature": 1.0, "top_p": 0.7, "top_k": 0}
        | (config or {}),
        "task": {
            "name": "toy",
            "source": "embedded",
            "gated": gated,
            "template": "{question}",
            "grader": grader,
        },
        "models": {"base": "models/base", "rl": rl, "stop_token_ids": [0]},
        "expected": {"problems": list(problems), "samples": samples, "directions": list(directions)}
        | {"budgets": list(budgets)},
        "created": "2026-01-01T00:00:00+00:00",
    }
    rng = np.random.default_rng(number)
    with RunStore.open(path, manifest) as store:
        store.write_problems([Problem(name, QUESTION, "1") for name in problems], gated)
        store.write_vocabulary(lambda: list(texts))
        there = keys[: len(keys) - missing]
        for part in (there[: len(there) // 2], there[len(there) // 2 :]):
            if part:
                _commit(store, part, rng, len(texts))
        if graded:
            grade(store, there, rng)
    return path


def grade(store: RunStore, keys: Sequence[Trajectory], rng: np.random.Generator) -> None:
    """Grade these trajectories: a budget makes a response likelier to be right."""
    verdicts = [
        "correct" if rng.random() < 0.3 + 0.05 * min(key.budget or 9, 9) else "wrong"
        for key in keys
    ]
    store.write_grades(
        Grade(
            key, "1" if verdict == "correct" else "2", None, "boxed", verdict, verdict == "correct"
        )
        for key, verdict in zip(keys, verdicts, strict=True)
    )


def matching(run: Path) -> dict[str, Any]:
    """What the identity of a control of `run` has beside its own."""
    store = RunStore.read(run)
    return {"matched": fingerprint(read_match(run, store.expected(), store.manifest["identity"]))}


def set_manifest(path: Path, **changes: Any) -> None:
    """Change what run.json says."""
    manifest = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps(manifest | changes))


def drop_columns(path: Path, columns: Sequence[str]) -> None:
    """Make the token parts older: without these columns."""
    for part in (path / "tokens").iterdir():
        pq.write_table(pq.read_table(part, partitioning=None).drop_columns(list(columns)), part)


def _commit(
    store: RunStore, keys: Sequence[Trajectory], rng: np.random.Generator, vocabulary: int
) -> None:
    tokens, responses = [], []
    for key in keys:
        ids = rng.integers(0, vocabulary, LENGTH).tolist()
        spent = 0
        for position, token in enumerate(ids):
            js = float(rng.choice([0.0, 1e-5, 0.02, 0.3, 0.6]))
            intervened = js > 0.1 and (key.budget is None or spent < key.budget)
            spent += intervened
            tokens.append(_row(key, position, token, js, intervened, rng, vocabulary))
        responses.append(
            {
                **key._asdict(),
                "prompt_token_ids": [1],
                "token_ids": ids,
                "tokens": LENGTH,
                "text": "The answer text",
                "finish_reason": "stop",
                "interventions": spent,
                "effective_interventions": spent // 2,
                "forked_from": None,
                "seed": 0,
            }
        )
    store.commit(pa.Table.from_pylist(tokens, TOKENS), pa.Table.from_pylist(responses, RESPONSES))


def _row(
    key: Trajectory,
    position: int,
    token: int,
    js: float,
    intervened: bool,
    rng: np.random.Generator,
    vocabulary: int,
) -> dict[str, Any]:
    base, rl = (rng.permutation(vocabulary).tolist() for _ in range(2))
    entropies = rng.gamma(1.0, 0.4, 2).tolist()
    return {
        **key._asdict(), "position": position, "token": token, "intervened": intervened,
        "effective": intervened, "primary_token": token if intervened else None, "js": js,
        "entropy_base": entropies[0], "entropy_rl": entropies[1], "logp_base": log(0.3),
        "logp_rl": log(0.4), "rank_base": 1, "rank_rl": 1, "nucleus_base": 2, "nucleus_rl": 2,
        "top1_base": base[0], "top1_rl": rl[0], "logp_base_of_top1_rl": log(0.2),
        "rank_base_of_top1_rl": base.index(rl[0]) + 1, "logp_rl_of_top1_base": log(0.1),
        "rank_rl_of_top1_base": rl.index(base[0]) + 1, "topk_base": base if js >= 0.1 else None,
        "topk_rl": rl if js >= 0.1 else None,
    }  # fmt: skip
