"""A summary as tables for the terminal: accuracy and interventions, pass@n, divergence.

In a narrow terminal cells fold, and no digit is cut off. The numbers are computed elsewhere
(evaluators.scores.summary, evaluators.scores.divergence).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from engine.core import GIVEN, budget_text
from evaluators.cutoffs import HIGH_DIVERGENCE

_ABSENT = "-"
# Budget 0 is plain sampling from the primary policy.
_PLAIN_SAMPLING: dict[tuple[str, int | None], str] = {
    ("forward", 0): "0 (base)",
    ("reverse", 0): "0 (RL)",
}
_ACCURACY = ("acc. %", "95 %")
_USAGE = ("inter-\nventions", "effec-\ntive", "tokens", "no ans-\nwer %", "trun-\ncated %")
_NOT_CORRECT = ("guessed", "timed_out", "ungradable")
_OF_POLICIES = ("entropy\nbase", "entropy\nRL", "logp\nbase", "logp\nRL")
_MEASURED = ("tokens", "measured\nby both", "js", "high\njs %", *_OF_POLICIES)
_MEANS = ("js", "entropy_base", "entropy_rl", "logp_base", "logp_rl")

Arm = dict[str, Any]
Summary = dict[str, Any]
_Column = tuple[str, bool]  # heading, and whether its cells stay on one line


def budget_name(direction: str, budget: int | None) -> str:
    """The name of an arm's budget: with budget 0 also the policy that samples every token."""
    return _PLAIN_SAMPLING.get((direction, budget)) or budget_text(budget)


def render(summary: Summary) -> Group:
    """The tables of a summary; without the second where it would repeat the first."""
    return Group(_usage_table(summary), *_sample_tables(summary))


def render_divergence(rows: Sequence[Arm]) -> Table:
    """The rows of `evaluators.scores.divergence.measure_divergence` as a table."""
    notes = [
        "means in nats, over the tokens that a policy has seen; js over those that both have",
        f"high js %: of these, how many have a js above {HIGH_DIVERGENCE} nats",
    ]
    return _table(
        [(name, False) for name in _MEASURED],
        [(row, _divergence_cells(row)) for row in rows],
        notes,
    )


def _divergence_cells(row: Arm) -> list[str]:
    js, *others = (
        _ABSENT if (mean := row[f"{name}_mean"]) is None else f"{mean:.3f}" for name in _MEANS
    )
    high = row["high_divergence_share"]
    share = _ABSENT if high is None else f"{100 * high:.1f}"
    return [f"{row['tokens']:,}", f"{row['positions']:,}", js, share, *others]


def _usage_table(summary: Summary) -> Table:
    verdicts = summary["total"]["verdicts"]
    not_correct = [
        f"{verdicts[name]} {name.replace('_', ' ')}" for name in _NOT_CORRECT if verdicts.get(name)
    ]
    notes = [
        f"acc.: avg@{_max_samples(summary)}, with its 95 % interval over problems",
        "interventions: mean per response (share of tokens)",
    ]
    if not_correct:
        notes.append(f"counted as not correct: {', '.join(not_correct)}")
    columns = [(name, True) for name in _ACCURACY] + [(name, False) for name in _USAGE]
    return _table(columns, [(arm, _usage_cells(arm)) for arm in summary["arms"]], notes)


def _sample_tables(summary: Summary) -> list[Table]:
    """The table of pass@n, maj@n and differences; none where it would have no column.

    pass@n and maj@n need several samples, and differences several budgets in a direction.
    """
    n, differences = _max_samples(summary), _differences_to_lowest(summary)
    columns: list[_Column] = []
    notes: list[str] = []
    if n > 1:
        columns += [
            (f"pass\n@{n} %", True),
            ("95 %", False),
            (f"maj\n@{n} %", True),
            ("95 %", False),
        ]
        notes += [f"pass@{n}: any sample correct; maj@{n}: the most frequent answer, ties share"]
    if differences:
        columns += [("differ-\nence", True), ("95 %", False)]
        notes += ["difference: acc. less that of the lowest budget, same problems and samples"]
    rows = []
    for arm in summary["arms"]:
        cells: list[str] = []
        if n > 1:
            cells += _percent(arm["pass_at_k"].get(str(n))) + _percent(arm["maj_at_k"].get(str(n)))
        if differences:
            cells += _points(differences.get(_name(arm)))
        rows.append((arm, cells))
    return [_table(columns, rows, notes)] if columns else []


def _table(
    columns: Sequence[_Column], rows: Sequence[tuple[Arm, list[str]]], notes: Sequence[str]
) -> Table:
    table = Table(caption="\n".join(notes), box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    table.add_column("direction", no_wrap=True)
    for name, is_one_line in (("budget", True), *columns):
        table.add_column(name, justify="right", overflow="fold", no_wrap=is_one_line)
    for arm, cells in rows:
        table.add_row(*_name(arm), *cells)
    return table


def _name(arm: Arm) -> tuple[str, str]:
    direction, budget = arm["direction"], arm["budget"]
    return direction, _ABSENT if direction == GIVEN else budget_name(direction, budget)


def _usage_cells(arm: Arm) -> list[str]:
    return [
        f"{100 * arm['accuracy']:.1f}",
        _range(arm["accuracy_low"], arm["accuracy_high"], "{:.1f}-{:.1f}"),
        f"{arm['interventions']:.1f} ({arm['interventions_share']:.1%})",
        f"{arm['effective']:.1f} ({arm['effective_share']:.1%})",
        f"{arm['tokens_mean']:.0f}",
        f"{100 * arm['no_answer_rate']:.1f}",
        f"{100 * arm['truncated_rate']:.1f}",
    ]


def _percent(score: dict[str, float] | None) -> list[str]:
    if score is None:
        return [_ABSENT, _ABSENT]
    return [f"{100 * score['value']:.1f}", _range(score["low"], score["high"], "{:.1f}-{:.1f}")]


def _range(low: float | None, high: float | None, form: str) -> str:
    return _ABSENT if low is None or high is None else form.format(100 * low, 100 * high)


def _points(row: dict[str, Any] | None) -> list[str]:
    """A difference in percentage points with its interval.

    Absent for the lowest budget itself, and where no sample is in common.
    """
    if row is None or row["difference"] is None:
        return [_ABSENT, _ABSENT]
    return [
        f"{100 * row['difference']:+.1f}",
        _range(row["low"], row["high"], "{:+.1f} to {:+.1f}"),
    ]


def _differences_to_lowest(summary: Summary) -> dict[tuple[str, str], dict[str, Any]]:
    """Each arm's difference to the lowest budget of its direction, by the name of the arm."""
    lowest: dict[str, int | None] = {}
    for arm in summary["arms"]:
        lowest.setdefault(arm["direction"], arm["budget"])
    return {
        _name(row): row
        for row in summary["differences"]
        if row["against_direction"] == row["direction"]
        and row["against_budget"] == lowest[row["direction"]]
    }


def _max_samples(summary: Summary) -> int:
    return max((arm["samples"] for arm in summary["arms"]), default=1)
