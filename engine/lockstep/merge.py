"""Two sides' traces in, rows of the tables out. Plain Arrow and NumPy; knows no engine, no files.

A trace has one row a position, ordered by (sequence, position), and only its own policy's numbers.
Joined, the columns stand side by side as in `record.TOKENS`, with `sequence` in place of the
trajectory's key.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.arrays import Bools, Ints
from engine.core import POLICIES
from engine.errors import LockstepError
from engine.store.schema import TOKENS

_SHARED = ("sequence", "position", "token", "intervened", "effective", "primary_token", "js")
_ALWAYS = ("sequence", "position", "token")
_OWN = ("entropy", "logp", "rank", "nucleus", "top1")  # what a policy records also when it is alone
_BASE, _RL = (tuple(f"{name}_{policy}" for name in _OWN) for policy in POLICIES)
_KEY_FIELDS = 4  # a table's first fields are the trajectory's key


def merge_sides(base: pa.RecordBatch | None, rl: pa.RecordBatch | None) -> pa.Table:
    """Put the two sides' columns side by side; a side that was not there (solo phase) is null.

    Raises LockstepError when the two sides did not decide the same.
    """
    side = base if base is not None else rl
    assert side is not None, "one side at least has seen the rows"
    if base is not None and rl is not None:
        for name in _SHARED:
            if not base.column(name).equals(rl.column(name)):
                raise LockstepError(
                    f"the engines recorded different values of {name!r} for the same rows"
                )
    columns = {name: side.column(name) for name in _SHARED}
    if base is None or rl is None:
        columns["js"] = pa.nulls(side.num_rows, pa.float32())
    for policy, other, batch in (("base", "rl", base), ("rl", "base", rl)):
        columns |= _columns_of(
            policy, other, batch, side.num_rows, paired=base is not None and rl is not None
        )
    return pa.table({name: columns[name] for name in ("sequence", *TOKENS.names[_KEY_FIELDS:])})


def _columns_of(
    policy: str, other: str, batch: pa.RecordBatch | None, num_rows: int, paired: bool
) -> dict[str, Any]:
    names = {f"{name}_{policy}": name for name in _OWN}
    names |= {
        f"{name}_{policy}_of_top1_{other}": f"{name}_of_other_top1" for name in ("logp", "rank")
    }
    names[f"topk_{policy}"] = "top_k"
    columns = {}
    for column, name in names.items():
        if batch is None or (name.endswith("of_other_top1") and not paired):
            columns[column] = pa.nulls(num_rows, TOKENS.field(column).type)
        else:
            columns[column] = batch.column(name)
    return columns


def without_twin(tokens: pa.Table, spent: Bools, forward: Bools, both: bool) -> pa.Table:
    """Rows `spent` [N] as they are after the budget: no intervention, and the primary's numbers
    only.

    forward [N]: base is primary. both: the twin stayed, so its numbers do.
    """
    if not spent.any():
        return tokens
    index = np.arange(len(spent))
    before = pa.array(index, mask=spent)
    columns = {}
    for name, column in zip(tokens.column_names, tokens.columns, strict=True):
        if name in ("intervened", "effective"):
            column = pc.and_(column, pa.array(~spent))
        elif name == "primary_token":
            column = column.take(before)
        elif not both and name not in _ALWAYS:
            gone = spent & (forward if name in _RL else ~forward if name in _BASE else True)
            column = column.take(pa.array(index, mask=gone))
        columns[name] = column
    return pa.table(columns)


def lengths(tokens: pa.Table, sequence: Ints) -> Ints:
    """Rows that `tokens` holds of each of `sequence`, [F]."""
    column = tokens.column("sequence").to_numpy()
    return np.searchsorted(column, sequence, "right") - np.searchsorted(column, sequence, "left")


def rows_of(tokens: pa.Table, sequence: int) -> pa.Table:
    """The rows of one sequence, without a copy. `tokens` is ordered by sequence."""
    start, stop = np.searchsorted(tokens.column("sequence").to_numpy(), (sequence, sequence + 1))
    return tokens.slice(int(start), int(stop - start))
