"""The tables at the top of a report: the runs, their accuracy and their divergence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pyarrow as pa

from engine.core import GIVEN, POLICIES, budget_text
from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO
from evaluators.report.cells import ABSENT, interval, number, percent, value_text
from evaluators.report.completeness import num_expected, num_readable
from evaluators.report.runs import Run
from evaluators.scores.summary_table import budget_name

MAX_ARMS = 24  # of more, only the lowest and the highest budget of each direction are shown


class Grid(NamedTuple):
    """A table of texts."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    left: frozenset[int] = frozenset()
    """Indices of the columns that are texts and not numbers, and so aligned to the left."""


def runs_grid(runs: Sequence[Run]) -> Grid:
    """One row per run: its models, task and settings, and how complete it is."""
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
    """The arms with their accuracy; None without the table `accuracy`.

    Of more than MAX_ARMS arms only the lowest and highest budget of each direction.
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
    """The shares of near-zero and of high divergence; None without the table `js_shares`."""
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
    policies = (
        (config[name] or "embedded") if name in config else models.get(name) for name in POLICIES
    )
    return (
        run.name,
        *map(value_text, policies),
        value_text(task.get("name")),
        value_text(criterion) + value_text(match or ""),
        value_text(config.get("threshold")),
        value_text(sampling or None),
        value_text(config.get("samples")),
        value_text(config.get("seed")),
        f"{num_readable(run):,} of {'?' if expected is None else f'{expected:,}'}",
        value_text(run.manifest.get("schema_version")),
        _created(run.manifest.get("created")),
    )


def _created(value: object) -> str:
    """A time to the minute, in UTC; any other value as it is."""
    try:
        return f"{datetime.fromisoformat(str(value)).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError):
        return value_text(value)


def _ends(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first and the last row of each run and direction: the lowest and the highest budget."""
    arms: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        arms.setdefault((row["run"], row["direction"]), []).append(row)
    return [row for of_arm in arms.values() for row in (of_arm[:1] + of_arm[1:][-1:])]


def _arm_row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["run"] + _role(row),
        row["direction"],
        _budget(row),
        percent(row["accuracy"]),
        interval(row["low"], row["high"]),
        f"{number(row['interventions'])} ({percent(row['interventions_share'])} %)",
        f"{number(row['effective'])} ({percent(row['effective_share'])} %)",
        number(row["tokens_mean"]),
        f"{row['responses']:,}",
    )


def _role(row: Mapping[str, Any]) -> str:
    if row["control"]:
        return " (control)"
    return " (responses given)" if row["given"] else ""


def _budget(row: Mapping[str, Any]) -> str:
    if row["direction"] == GIVEN:
        return ABSENT
    if row["given"]:  # no policy of this run sampled it
        return budget_text(row["budget"])
    return budget_name(row["direction"], row["budget"])


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
