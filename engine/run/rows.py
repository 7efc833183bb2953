"""Rows of the tables, from the merged columns of finished trajectories. Plain Arrow and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from engine.arrays import Bools, Ints
from engine.core import UNLIMITED_CODE, Trajectory
from engine.lockstep.merge import lengths
from engine.store.schema import RESPONSES, TOKENS

_KEY_FIELDS = 4  # a table's first fields are the trajectory's key


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


def forked_from(keys: Sequence[Trajectory], job: Ints, stem_index: Ints) -> list[int | None]:
    """The column `forked_from` of finished jobs: the budget of the stem that each was forked from.

    Args:
        keys: The trajectories of a lease.
        job: Finished jobs [F], indices of `keys`.
        stem_index: The job whose trajectory each shares its first tokens with [F].

    Returns:
        Budgets [F]. UNLIMITED_CODE is an unlimited one, None a trajectory that is its own stem.
    """
    return [
        None if stem == own else UNLIMITED_CODE if budget is None else budget
        for own, stem, budget in zip(
            job.tolist(),
            stem_index.tolist(),
            (keys[stem].budget for stem in stem_index),
            strict=True,
        )
    ]
