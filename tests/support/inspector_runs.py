"""Runs and samples for the inspector, small and with numbers that a test can name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from engine.core import POLICIES, Grade, Problem, Trajectory
from engine.store.run_store import RunStore
from engine.store.schema import RESPONSES, TOKENS
from evaluators.inspector.sample import Sample, Traced
from tests.support.commits import fill

# The vocabulary: what each token id is as text.
TEXTS = [
    "<eos>", " the", " sum", " is", "\n\n", "4", "5", " so", "\t", "\N{REPLACEMENT CHARACTER}", "",
]  # fmt: skip
HOSTILE = "</script><script>alert(1)</script>\"'&[bold red]\x1b[31m\u202e\u2028\u05d0"
_MODELS = {"base": "models/base", "rl": "models/rl", "stop_token_ids": [0]}
_CONFIG = {
    "criterion": "js",
    "threshold": 0.1,
    "temperature": 1.0,
    "top_p": 0.7,
    "budget": [1, None],
    "match": None,
}


def key(
    direction: str = "forward", budget: int | None = None, problem: str = "p", sample: int = 0
) -> Trajectory:
    """A trajectory."""
    return Trajectory(problem, sample, direction, budget)


def token(at: Trajectory, position: int, token: int, **values: Any) -> dict[str, Any]:
    """A row of TOKENS: measured where `values` say so."""
    known = {"position": position, "token": token, "intervened": False, "effective": False}
    return {**dict.fromkeys(TOKENS.names), **at._asdict(), **known, **values}


def measured(at: Trajectory, tokens: Sequence[int]) -> list[dict[str, Any]]:
    """Rows whose numbers all differ; two of them are interventions.

    The third is an effective intervention, the fourth one that is not.
    """
    rows = []
    for position, taken in enumerate(tokens):
        numbers = {
            f"{name}_{policy}": value
            for place, policy in enumerate(POLICIES)
            for name, value in (
                ("entropy", 0.5 + place + position),
                ("logp", -0.3 - place - position / 7),
                ("rank", 1 + place + position),
                ("nucleus", 11 + place + position),
                ("top1", 1 + place),
            )
        }
        rows.append(
            token(
                at,
                position,
                taken,
                js=0.01 * position**2,
                intervened=position in (2, 3),
                effective=position == 2,
                primary_token={2: 3, 3: taken}.get(position),
                logp_base_of_top1_rl=-1.25,
                rank_base_of_top1_rl=4,
                logp_rl_of_top1_base=-2.5,
                rank_rl_of_top1_base=7,
                topk_base=[1, 2, 3] if position == 2 else None,
                topk_rl=[2, 1, 7] if position == 2 else None,
                **numbers,
            )
        )
    return rows


def make_run(
    path: Path,
    parts: Sequence[Sequence[Sequence[dict[str, Any]]]],
    texts: Sequence[str] = TEXTS,
    gated: bool = False,
    problem: Problem | None = None,
    expected: dict[str, Any] | None = None,
    scored: bool = False,
    problems: bool = True,
) -> Path:
    """Write a run directory.

    Args:
        path: Where.
        parts: A part is a list of trajectories, a trajectory the rows of its tokens.
        texts: The vocabulary.
        gated: Whether the task set is one whose text is not shown.
        problem: The only problem.
        expected: The trajectories that the run asks for; those of `parts` if None.
        scored: Whether it looks as if `xsample score` had made it.
        problems: Whether the problem is written.

    Returns:
        `path`.
    """
    keys = [[key_of(rows) for rows in part] for part in parts]
    manifest = {
        "identity": {"responses": "58ec"} if scored else {},
        "config": _CONFIG,
        "models": _MODELS,
        "task": {"name": "sums", "gated": gated, "grader": "math"},
        "expected": expected or {"trajectories": [list(at) for part in keys for at in part]},
    }
    with RunStore.open(path, manifest) as store:
        asked = problem or Problem("p", "What is 2 + 2?", "4")
        store.write_problems([asked] if problems else [], gated)
        store.write_vocabulary(lambda: texts)
        for part in parts:
            tokens = pa.Table.from_pylist([row for rows in part for row in rows], TOKENS)
            store.commit(tokens, pa.concat_tables(map(response_of, part)))
    return path


def small_run(path: Path, **options: Any) -> Path:
    """A run of both directions in two parts, each with budgets 1 and unlimited.

    A trajectory of another sample lies between them.

    Args:
        path: Where.
        options: Of `make_run`.
    """
    forward = [
        measured(key("forward", None), [1, 2, 3, 5, 4, 0]),
        measured(key("forward", 1), [1, 2, 3, 5, 4, 0]),
    ]
    reverse = [
        measured(key("reverse", None), [1, 2, 7, 6, 0]),
        measured(key("reverse", 1), [1, 2, 7, 6, 8, 9, 0]),
    ]
    return make_run(path, [[*forward, measured(key(sample=1), [5, 0])], reverse], **options)


def grade(run: Path, *grades: Grade) -> None:
    """Write these grades of a run."""
    with RunStore.read(run) as store:
        store.write_grades(grades)


def sample_of(rows: Sequence[dict[str, Any]], **values: Any) -> Sample:
    """A sample of one trajectory that no run holds; `values` are other fields of it."""
    fields: dict[str, Any] = {
        "run": "r",
        "problem": "p",
        "sample": 0,
        "manifest": {},
        "question": "?",
        "prompt": "",
        "answer": "4",
        "gated": False,
        "texts": dict(enumerate(TEXTS)),
    }
    [response] = response_of(rows).to_pylist()
    traced = Traced(key_of(rows), pa.Table.from_pylist(list(rows), TOKENS), response)
    return Sample(**fields | {"trajectories": (traced,)} | values)


def key_of(rows: Sequence[dict[str, Any]]) -> Trajectory:
    """The trajectory that token rows belong to."""
    return Trajectory(*(rows[0][name] for name in Trajectory._fields))


def response_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The response, one row of RESPONSES, that has these token rows."""
    values = {
        "prompt_token_ids": [5, 1],
        "token_ids": [row["token"] for row in rows],
        "tokens": len(rows),
        "finish_reason": "stop",
        "interventions": sum(row["intervened"] for row in rows),
        "effective_interventions": sum(row["effective"] for row in rows),
    }
    return fill(RESPONSES, [key_of(rows)._asdict() | values])
