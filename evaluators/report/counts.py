"""The n of the captions: how many positions, responses or problems a figure is made of.

Every function takes the tables of a report, and returns the numbers of each run and direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from evaluators.cutoffs import HIGH_DIVERGENCE, NEAR_ZERO

Tables = Mapping[str, pa.Table]
MAX_LISTED = 6  # groups; of more, only the smallest and the largest number
_GROUP = ["run", "direction"]


def positions(tables: Tables) -> str:
    """Measured positions."""
    return _text(_shares(tables, HIGH_DIVERGENCE, lambda row: int(row["positions"])), "positions")


def high_positions(tables: Tables) -> str:
    """Measured positions of high divergence."""
    numbers = _shares(
        tables, HIGH_DIVERGENCE, lambda row: round(row["positions"] * (row["above"] or 0.0))
    )
    return _text(numbers, f"positions with JS > {HIGH_DIVERGENCE:g} nats")


def low_and_high(tables: Tables) -> str:
    """Measured positions of low and of high divergence, without those between."""
    low = _shares(tables, NEAR_ZERO, lambda row: round(row["positions"] * (row["at_most"] or 0.0)))
    lines = (_text(low, f"positions with JS <= {NEAR_ZERO:g} nats"), high_positions(tables))
    return "; ".join(lines)


def all_and_high(tables: Tables) -> str:
    """All measured positions, and those of high divergence."""
    return "; ".join((positions(tables), high_positions(tables)))


def with_lists(tables: Tables) -> str:
    """Positions of high divergence with stored top-k lists."""
    numbers = _aggregate(tables, "topk_overlap", "positions", "max")
    return _text(numbers, f"positions with JS > {HIGH_DIVERGENCE:g} nats and stored lists")


def of_tokens(tables: Tables) -> str:
    """Positions of the tokens in the figure."""
    return _text(_aggregate(tables, "token_js", "positions", "sum"), "positions of these tokens")


def responses(tables: Tables) -> str:
    """Graded responses per budget, and the problems to which the intervals refer."""
    numbers = _aggregate(tables, "accuracy", "responses", "max")
    problems = _aggregate(tables, "accuracy", "problems", "max")
    return f"{_text(numbers, 'graded responses')} per budget, to {_text(problems, 'problems')}"


def pairs(tables: Tables) -> str:
    """The largest number of pairs of responses of a difference."""
    return _text(
        _aggregate(tables, "accuracy_differences", "pairs", "max"), "pairs of responses (at most)"
    )


def sequences(tables: Tables) -> str:
    """Responses in a scatter plot."""
    return _text(_aggregate(tables, "sequences", "positions", "count"), "responses")


def per_step(table: str) -> Callable[[Tables], str]:
    """The function that counts the positions of each step in a comparison of runs."""

    def count(tables: Tables) -> str:
        rows = tables[table].to_pylist()
        return _text(
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


def _aggregate(tables: Tables, table: str, column: str, how: str) -> dict[tuple[str, str], int]:
    rows = tables[table].group_by(_GROUP, use_threads=False).aggregate([(column, how)]).to_pylist()
    return {(row["run"], row["direction"]): row[f"{column}_{how}"] or 0 for row in rows}


def _text(numbers: Mapping[tuple[str, str], int], unit: str) -> str:
    """The numbers of each run and direction as text.

    A single run is not named. Of many groups only the smallest and the largest number are given.

    Example:
        "run-a forward 12, reverse 3; run-b forward 4 positions".
    """
    if len(numbers) > MAX_LISTED:
        smallest, largest = min(numbers.values()), max(numbers.values())
        return f"{smallest:,} to {largest:,} {unit} per run and direction"
    by_run: dict[str, list[str]] = {}
    for (run, direction), number in numbers.items():
        by_run.setdefault(run, []).append(f"{direction} {number:,}")
    has_several = len(by_run) > 1
    texts = [
        f"{run} {', '.join(parts)}" if has_several else ", ".join(parts)
        for run, parts in by_run.items()
    ]
    return f"{'; '.join(texts)} {unit}"
