"""The numbers of a run, one row an arm (direction and budget): as JSON-able values, and as a terminal table.

Joins responses to their grades; a response without a grade is an error, never left out. Accuracy is avg@n:
each problem weighs the same, `correct` counts 1 and every other verdict 0. Means of interventions are per
response; shares are of all tokens of the arm.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich import box
from rich.table import Table

from engine.errors import XsampleError
from engine.record import TRAJECTORY_KEY, Trajectory
from evaluators.metrics import avg_at_n, bootstrap_interval, ratio
from evaluators.verdict import VERDICTS

COUNTED = ["tokens", "finish_reason", "interventions", "effective_interventions"]
_DIRECTIONS = {"forward": 0, "reverse": 1}
_PLAIN_SAMPLING = {("forward", 0): "0 (base)", ("reverse", 0): "0 (RL)"}
_KEPT_ON_ONE_LINE = ("budget", "acc. %", "95 %")
_COLUMNS = (*_KEPT_ON_ONE_LINE, "inter-\nventions", "effec-\ntive", "tokens", "no ans-\nwer %", "trun-\ncated %")
_CAPTION = ("acc.: avg@n, with its 95 % interval over problems", "interventions: mean per response (share of tokens)")


class _Response(NamedTuple):
    """A row of `responses` as far as it is counted, with its verdict."""

    key: Trajectory
    tokens: int
    finish_reason: str
    interventions: int
    effective_interventions: int
    verdict: str


def summarise(responses: pa.Table, grades: pa.Table) -> dict[str, Any]:
    """`{"arms": [row, ...], "total": {...}}`; budget None is unlimited. Raises XsampleError if a grade is missing."""
    rows = _join(responses, grades)
    arms: dict[tuple[str, int | None], list[_Response]] = {}
    for row in rows:
        arms.setdefault((row.key.direction, row.key.budget), []).append(row)
    return {"arms": [_arm(*arm, arms[arm]) for arm in sorted(arms, key=_arm_order)], "total": _total(rows)}


def render(summary: dict[str, Any]) -> Table:
    """The summary as the terminal shows it: in a narrow one cells fold, and no digit is cut off."""
    table = Table(caption=_caption(summary["total"]["verdicts"]), box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("direction", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right", overflow="fold", no_wrap=name in _KEPT_ON_ONE_LINE)
    for arm in summary["arms"]:
        table.add_row(*_cells(arm))
    return table


def _join(responses: pa.Table, grades: pa.Table) -> list[_Response]:
    verdicts = dict(zip(_keys(grades), grades["verdict"].to_pylist(), strict=True))
    keys = _keys(responses)
    missing = [key for key in keys if key not in verdicts]
    if missing:
        raise XsampleError(
            f"{len(missing)} of {len(keys)} responses have no grade, among them {tuple(missing[0])}: grade it again"
        )
    columns = [responses[name].to_pylist() for name in COUNTED]
    return list(map(_Response._make, zip(keys, *columns, [verdicts[key] for key in keys], strict=True)))


def _keys(table: pa.Table) -> list[Trajectory]:
    keys = [Trajectory(*key) for key in zip(*(table[name].to_pylist() for name in TRAJECTORY_KEY), strict=True)]
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise XsampleError(f"{len(twice)} trajectories are there more than once, among them {tuple(twice[0])}")
    return keys


def _arm_order(arm: tuple[str, int | None]) -> tuple[int, bool, int]:
    direction, budget = arm
    return _DIRECTIONS[direction], budget is None, budget or 0


def _arm(direction: str, budget: int | None, rows: list[_Response]) -> dict[str, Any]:
    num_samples = Counter(row.key.problem for row in rows)
    num_correct = Counter(row.key.problem for row in rows if row.verdict == "correct")
    samples = np.array([num_samples[problem] for problem in sorted(num_samples)])
    correct = np.array([num_correct[problem] for problem in sorted(num_samples)])
    interval = bootstrap_interval(correct / samples)
    return {
        "direction": direction,
        "budget": budget,
        "problems": len(num_samples),
        "samples": max(num_samples.values()),
        "responses": len(rows),
        "accuracy": avg_at_n(samples, correct),
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
        **_usage(rows),
        "verdicts": _verdicts(rows),
    }


def _usage(rows: list[_Response]) -> dict[str, float]:
    tokens = [row.tokens for row in rows]
    interventions = sum(row.interventions for row in rows)
    effective = sum(row.effective_interventions for row in rows)
    return {
        "interventions": ratio(interventions, len(rows)),
        "interventions_share": ratio(interventions, sum(tokens)),
        "effective": ratio(effective, len(rows)),
        "effective_share": ratio(effective, sum(tokens)),
        "tokens_mean": ratio(sum(tokens), len(rows)),
        "tokens_median": float(np.median(tokens)),
        "no_answer_rate": ratio(sum(row.verdict == "no_answer" for row in rows), len(rows)),
        "truncated_rate": ratio(sum(row.finish_reason == "length" for row in rows), len(rows)),
    }


def _total(rows: list[_Response]) -> dict[str, Any]:
    return {
        "problems": len({row.key.problem for row in rows}),
        "responses": len(rows),
        "tokens": sum(row.tokens for row in rows),
        "interventions": sum(row.interventions for row in rows),
        "effective": sum(row.effective_interventions for row in rows),
        "truncated": sum(row.finish_reason == "length" for row in rows),
        "verdicts": _verdicts(rows),
    }


def _verdicts(rows: list[_Response]) -> dict[str, int]:
    """How many of each, zeros included. An unknown verdict would be counted nowhere: a bug."""
    counts = Counter(row.verdict for row in rows)
    assert set(counts) <= set(VERDICTS), f"verdicts {sorted(set(counts) - set(VERDICTS))} are not in the list"
    return {verdict: counts[verdict] for verdict in VERDICTS}


def _cells(arm: dict[str, Any]) -> list[str]:
    return [
        arm["direction"],
        _PLAIN_SAMPLING.get((arm["direction"], arm["budget"]), _budget(arm["budget"])),
        f"{100 * arm['accuracy']:.1f}",
        f"{100 * arm['accuracy_low']:.1f}-{100 * arm['accuracy_high']:.1f}",
        f"{arm['interventions']:.1f} ({arm['interventions_share']:.1%})",
        f"{arm['effective']:.1f} ({arm['effective_share']:.1%})",
        f"{arm['tokens_mean']:.0f}",
        f"{100 * arm['no_answer_rate']:.1f}",
        f"{100 * arm['truncated_rate']:.1f}",
    ]


def _budget(budget: int | None) -> str:
    return "unlimited" if budget is None else str(budget)


def _caption(verdicts: dict[str, int]) -> str:
    undecided = [f"{verdicts[name]} {name.replace('_', ' ')}" for name in ("timed_out", "ungradable") if verdicts[name]]
    return "\n".join([*_CAPTION, *([f"counted as not correct: {', '.join(undecided)}"] if undecided else [])])
