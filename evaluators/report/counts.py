"""n for the captions: how many positions, responses or problems a figure is made of, by run and
direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO

Tables = Mapping[str, pa.Table]
MAX_SAID = 6
_GROUP = ["run", "direction"]


def positions(tables: Tables) -> str:
    """Positions that both policies have measured."""
    return _said(_shares(tables, HIGH_DIVERGENCE, lambda row: int(row["positions"])), "positions")


def high_positions(tables: Tables) -> str:
    """Of these, those of high divergence."""
    found = _shares(
        tables, HIGH_DIVERGENCE, lambda row: round(row["positions"] * (row["above"] or 0.0))
    )
    return _said(found, f"positions with JS > {HIGH_DIVERGENCE:g} nats")


def low_and_high(tables: Tables) -> str:
    """Of these, those of low and those of high divergence; what lies between is not drawn."""
    low = _shares(tables, NEAR_ZERO, lambda row: round(row["positions"] * (row["at_most"] or 0.0)))
    lines = (_said(low, f"positions with JS <= {NEAR_ZERO:g} nats"), high_positions(tables))
    return "; ".join(lines)


def all_and_high(tables: Tables) -> str:
    """All of these, and those of high divergence."""
    return "; ".join((positions(tables), high_positions(tables)))


def with_lists(tables: Tables) -> str:
    """Positions of high divergence whose top-k lists are stored."""
    found = _grouped(tables, "topk_overlap", "positions", "max")
    return _said(found, f"positions with JS > {HIGH_DIVERGENCE:g} nats and stored lists")


def of_tokens(tables: Tables) -> str:
    """Positions of the tokens that are shown."""
    return _said(_grouped(tables, "token_js", "positions", "sum"), "positions of these tokens")


def responses(tables: Tables) -> str:
    """Graded responses, and the problems that the intervals are over."""
    found = _grouped(tables, "accuracy", "responses", "max")
    problems = _grouped(tables, "accuracy", "problems", "max")
    return f"{_said(found, 'graded responses')} a budget, to {_said(problems, 'problems')}"


def pairs(tables: Tables) -> str:
    """Pairs of responses of a difference, at most."""
    return _said(
        _grouped(tables, "accuracy_differences", "pairs", "max"), "pairs of responses (at most)"
    )


def sequences(tables: Tables) -> str:
    """Responses in a scatter plot."""
    return _said(_grouped(tables, "sequences", "positions", "count"), "responses")


def per_step(table: str) -> Callable[[Tables], str]:
    """Positions of a comparison of runs, a number a step."""

    def count(tables: Tables) -> str:
        rows = tables[table].to_pylist()
        return _said(
            {(row["label"], row["direction"]): row["positions"] or 0 for row in rows}, "positions"
        )

    return count


def _shares(
    tables: Tables, cutoff: float, count: Callable[[dict[str, float]], int]
) -> dict[tuple[str, str], int]:
    if "js_shares" not in tables:
        return {}
    rows = tables["js_shares"].filter(pc.equal(tables["js_shares"]["cutoff"], cutoff)).to_pylist()
    return {(row["run"], row["direction"]): count(row) for row in rows}


def _grouped(tables: Tables, table: str, column: str, how: str) -> dict[tuple[str, str], int]:
    rows = tables[table].group_by(_GROUP, use_threads=False).aggregate([(column, how)]).to_pylist()
    return {(row["run"], row["direction"]): row[f"{column}_{how}"] or 0 for row in rows}


def _said(found: Mapping[tuple[str, str], int], unit: str) -> str:
    """ "run-a forward 12, reverse 3; run-b forward 4 positions"; the run is left out where there is
    one only.

    Of many, the least and the most.
    """
    if len(found) > MAX_SAID:
        return f"{min(found.values()):,} to {max(found.values()):,} {unit} a run and direction"
    by_run: dict[str, list[str]] = {}
    for (run, direction), number in found.items():
        by_run.setdefault(run, []).append(f"{direction} {number:,}")
    several = len(by_run) > 1
    return (
        "; ".join(f"{run + ' ' if several else ''}{', '.join(of)}" for run, of in by_run.items())
        + f" {unit}"
    )
