"""What stands at the top of a report: the runs that were compared, and the numbers one looks for
first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from engine.core import GIVEN, POLICIES, budget_text
from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.report.cells import ABSENT, interval, number, percent, shown
from evaluators.report.completeness import num_expected, num_there
from evaluators.report.runs import Run

MAX_ARMS = (
    24  # with more, the lowest and the highest budget of a direction are enough to look at first
)
_PLAIN = {("forward", 0): "0 (base)", ("reverse", 0): "0 (RL)"}


class Grid(NamedTuple):
    """A table of texts. `left`: places of the columns that are not numbers."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: frozenset[int] = frozenset()


def runs_grid(runs: Sequence[Run]) -> Grid:
    """A row a run: what was asked of whom, and how much of it is there."""
    columns = (
        "run",
        "base",
        "RL",
        "task",
        "criterion",
        "threshold",
        "sampling",
        "samples",
        "seed",
        "trajectories",
    )
    return Grid((*columns, "schema version", "created"), [_run_row(run) for run in runs])


def accuracy_grid(tables: Mapping[str, pa.Table]) -> Grid | None:
    """The arms as `xsample grade` shows them; of many arms only the lowest and highest budget of
    each direction.
    """
    if "accuracy" not in tables:
        return None
    rows = tables["accuracy"].to_pylist()
    chosen = rows if len(rows) <= MAX_ARMS else _ends(rows)
    columns = (
        "run",
        "direction",
        "budget",
        "accuracy %",
        "95 %",
        "interventions",
        "effective",
        "tokens",
        "responses",
    )
    return Grid(columns, [_arm_row(row) for row in chosen], frozenset(range(3)))


def divergence_grid(tables: Mapping[str, pa.Table]) -> Grid | None:
    """Near-zero and high-divergence shares, and how much of the responses both policies
    measured.
    """
    if "js_shares" not in tables:
        return None
    by_arm: dict[tuple[str, str], dict[float, dict[str, Any]]] = {}
    for row in tables["js_shares"].to_pylist():
        by_arm.setdefault((row["run"], row["direction"]), {})[row["cutoff"]] = row
    columns = ("run", "direction", "tokens", "measured by both", "share of tokens %")
    shares = (f"near zero (JS ≤ {NEAR_ZERO:g}) %", f"high (JS > {HIGH_DIVERGENCE:g}) %")
    return Grid(
        (*columns, *shares),
        [(*arm, *_shares(of_arm)) for arm, of_arm in by_arm.items()],
        frozenset(range(2)),
    )


def _run_row(run: Run) -> tuple[str, ...]:
    config, models, task = (run.section(name) for name in ("config", "models", "task"))
    expected = num_expected(run)
    sampling = ", ".join(
        f"{name} {config[key]}"
        for key, name in (("temperature", "T"), ("top_p", "top-p"), ("top_k", "top-k"))
        if key in config and (key, config[key]) != ("top_k", 0)
    )
    criterion = "none (responses given)" if run.is_scored else config.get("criterion")
    match = f", matches {config['match']}" if config.get("match") else ""
    return (
        run.name,
        *(
            shown((config[name] or "embedded") if name in config else models.get(name))
            for name in POLICIES
        ),
        shown(task.get("name")),
        shown(criterion) + shown(match or ""),
        shown(config.get("threshold")),
        shown(sampling or None),
        shown(config.get("samples")),
        shown(config.get("seed")),
        f"{num_there(run):,} of {'?' if expected is None else f'{expected:,}'}",
        shown(run.manifest.get("schema_version")),
        _created(run.manifest.get("created")),
    )


def _created(value: object) -> str:
    """The minute, in UTC; as it is where it is no time."""
    try:
        return f"{datetime.fromisoformat(str(value)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return shown(value)


def _ends(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first and the last row of each run and direction; budgets rise."""
    arms: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        arms.setdefault((row["run"], row["direction"]), []).append(row)
    return [row for of_arm in arms.values() for row in (of_arm[:1] + of_arm[1:][-1:])]


def _arm_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    budget = budget_text(row["budget"])
    plain = {} if row["given"] else _PLAIN
    return (
        row["run"]
        + (" (control)" if row["control"] else " (responses given)" if row["given"] else ""),
        row["direction"],
        ABSENT
        if row["direction"] == GIVEN
        else plain.get((row["direction"], row["budget"]), budget),
        percent(row["accuracy"]),
        interval(row["low"], row["high"]),
        f"{number(row['interventions'])} ({percent(row['interventions_share'])} %)",
        f"{number(row['effective'])} ({percent(row['effective_share'])} %)",
        number(row["tokens_mean"]),
        f"{row['responses']:,}",
    )


def _shares(of_arm: Mapping[float, Mapping[str, Any]]) -> tuple[str, ...]:
    near, high = of_arm.get(NEAR_ZERO, {}), of_arm.get(HIGH_DIVERGENCE, {})
    tokens, positions = high.get("tokens") or 0, high.get("positions") or 0
    coverage = positions / tokens if tokens else None
    return (
        f"{tokens:,}",
        f"{positions:,}",
        percent(coverage),
        percent(near.get("at_most")),
        percent(high.get("above")),
    )
