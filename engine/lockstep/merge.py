"""Merging the two sides' traces into rows of the tables, in plain Arrow and NumPy.

A trace has one row per position, ordered by (sequence, position), and only its own policy's
numbers. Merged, the columns stand side by side as in `schema.TOKENS`, with `sequence` in place of
the trajectory's key. Engines and files are not known here.

Dimensions: N rows of a table, F sequences.
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
    """Put the two sides' columns side by side.

    Args:
        base: The trace of base; None in a solo phase of rl, whose merged columns of base are null.
        rl: The trace of rl, in the same way.

    Raises:
        LockstepError: The two sides did not decide the same.
    """
    side = base if base is not None else rl
    assert side is not None, "at least one side has seen the rows"
    is_paired = base is not None and rl is not None
    if base is not None and rl is not None:
        for name in _SHARED:
            if not base.column(name).equals(rl.column(name)):
                raise LockstepError(
                    f"the engines recorded different values of {name!r} for the same rows"
                )
    columns = {name: side.column(name) for name in _SHARED}
    if not is_paired:
        columns["js"] = pa.nulls(side.num_rows, pa.float32())
    for policy, other, batch in (("base", "rl", base), ("rl", "base", rl)):
        columns |= _columns_of(policy, other, batch, side.num_rows, is_paired)
    return pa.table({name: columns[name] for name in ("sequence", *TOKENS.names[_KEY_FIELDS:])})


def _columns_of(
    policy: str, other: str, batch: pa.RecordBatch | None, num_rows: int, is_paired: bool
) -> dict[str, Any]:
    """The columns of one policy."""
    names = {f"{name}_{policy}": name for name in _OWN}
    names |= {
        f"{name}_{policy}_of_top1_{other}": f"{name}_of_other_top1" for name in ("logp", "rank")
    }
    names[f"topk_{policy}"] = "top_k"
    columns = {}
    for column, name in names.items():
        if batch is None or (name.endswith("of_other_top1") and not is_paired):
            columns[column] = pa.nulls(num_rows, TOKENS.field(column).type)
        else:
            columns[column] = batch.column(name)
    return columns


def without_twin(tokens: pa.Table, spent: Bools, forward: Bools, keep_numbers: bool) -> pa.Table:
    """Make the rows after the budget is spent what the primary makes alone: no intervention.

    Args:
        tokens: Merged rows.
        spent: Whether the budget is spent before each row [N].
        forward: Whether base is the primary of each row [N], else rl.
        keep_numbers: Whether both policies were measured there, so that their numbers stay.
    """
    if not spent.any():
        return tokens
    index = np.arange(len(spent))
    index_before_spent = pa.array(index, mask=spent)
    columns = {}
    for name, column in zip(tokens.column_names, tokens.columns, strict=True):
        if name in ("intervened", "effective"):
            column = pc.and_(column, pa.array(~spent))
        elif name == "primary_token":
            column = column.take(index_before_spent)
        elif not keep_numbers and name not in _ALWAYS:
            is_null = spent
            if name in _RL:
                is_null = spent & forward
            elif name in _BASE:
                is_null = spent & ~forward
            column = column.take(pa.array(index, mask=is_null))
        columns[name] = column
    return pa.table(columns)


def lengths(tokens: pa.Table, sequence: Ints) -> Ints:
    """Rows that a table holds of each sequence [F]. The table is ordered by sequence."""
    column = tokens.column("sequence").to_numpy()
    return np.searchsorted(column, sequence, "right") - np.searchsorted(column, sequence, "left")


def rows_of(tokens: pa.Table, sequence: int) -> pa.Table:
    """The rows of one sequence, without a copy. The table is ordered by sequence."""
    start, stop = np.searchsorted(tokens.column("sequence").to_numpy(), (sequence, sequence + 1))
    return tokens.slice(int(start), int(stop - start))
