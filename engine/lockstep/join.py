"""Two sides' traces in, rows of the tables out. Plain Arrow and NumPy; knows no engine, no files.

A trace has one row a position, ordered by (sequence, position), and only its own policy's numbers.
Joined, the columns stand side by side as in `record.TOKENS`, with `sequence` in place of the
trajectory's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from engine.arrays import Bools, Ints
from engine.core import Trajectory
from engine.errors import LockstepError
from engine.store.schema import RESPONSES, TOKENS

_SHARED = ("sequence", "position", "token", "intervened", "effective", "primary_token", "js")
_ALWAYS = ("sequence", "position", "token")
_OWN = ("entropy", "logp", "rank", "nucleus", "top1")  # what a policy records also when it is alone
_BASE, _RL = (tuple(f"{name}_{policy}" for name in _OWN) for policy in ("base", "rl"))
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


def token_rows(tokens: pa.Table, keys: Sequence[Trajectory]) -> pa.Table:
    """Rows of `record.TOKENS`; `tokens.sequence` indexes `keys`."""
    sequence = tokens.column("sequence")
    columns = [column.take(sequence) for column in _key_columns(keys)]
    return pa.table(
        columns + [tokens.column(name) for name in TOKENS.names[_KEY_FIELDS:]], schema=TOKENS
    )


def response_rows(
    tokens: pa.Table,
    keys: Sequence[Trajectory],
    sequence: Ints,
    prompts: Sequence[list[int]],
    stopped: Bools,
    forked_from: Sequence[int | None],
    tokenizer: Any,
    seed: int,
) -> pa.Table:
    """Rows of `record.RESPONSES` of the trajectories `keys[sequence]`, which `tokens` holds from
    first to last token.

    prompts, stopped and forked_from belong to `sequence`, ascending; `tokens` is ordered by
    (sequence, position).
    """
    size = lengths(tokens, sequence)
    row = np.repeat(np.arange(len(sequence)), size)
    token, offsets = _column(tokens, "token"), np.append(0, np.cumsum(size)).astype(np.int32)
    # As arrays: of a list, transformers asks every element for its type, which takes longer than to
    # decode it.
    responses = [token.to_numpy()[start:stop] for start, stop in pairwise(offsets.tolist())]
    counts = {
        name: np.bincount(
            row, _column(tokens, name).to_numpy(zero_copy_only=False), len(sequence)
        ).astype(np.int32)
        for name in ("intervened", "effective")
    }
    columns = {
        **dict(zip(RESPONSES.names, _key_columns([keys[s] for s in sequence]), strict=False)),
        "prompt_token_ids": pa.array(prompts, pa.list_(pa.int32())),
        "token_ids": pa.ListArray.from_arrays(offsets, token),
        "tokens": size.astype(np.int32),
        "text": tokenizer.batch_decode(responses, skip_special_tokens=True),
        "finish_reason": np.where(stopped, "stop", "length"),
        "interventions": counts["intervened"],
        "effective_interventions": counts["effective"],
        "forked_from": pa.array(forked_from, pa.int32()),
        "seed": np.full(len(sequence), seed),
    }
    return pa.table(columns, schema=RESPONSES)


def _key_columns(keys: Sequence[Trajectory]) -> list[pa.Array]:
    columns = zip(*keys, strict=True) if keys else ((),) * _KEY_FIELDS
    return [pa.array(column, RESPONSES.field(n).type) for n, column in enumerate(columns)]


def _column(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name).combine_chunks()
    return column if isinstance(column, pa.Array) else pa.array([], table.schema.field(name).type)
