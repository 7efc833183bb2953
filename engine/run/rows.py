"""Rows of the tables of a run, from the merged columns of finished trajectories.

Plain Arrow and NumPy. Dimensions: T tokens of all trajectories together, F finished trajectories.
"""

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

_KEY_FIELDS = 4  # the first fields of each table are the key of a trajectory


def token_rows(tokens: pa.Table, keys: Sequence[Trajectory]) -> pa.Table:
    """Rows of the table `schema.TOKENS`.

    Args:
        tokens: The merged columns [T]; the column `sequence` has indices of `keys`.
        keys: The trajectories of a lease.
    """
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
    """Rows of the table `schema.RESPONSES`, one per finished trajectory.

    Args:
        tokens: All tokens of the finished trajectories [T], ordered by (sequence, position).
        keys: The trajectories of a lease.
        sequence: The finished trajectories [F], ascending indices of `keys`.
        prompts: Their prompts [F], as token ids.
        stopped: Which of them ended by themselves [F].
        forked_from: The column of this name [F], see `fork_budgets`.
        tokenizer: Turns token ids into text.
        seed: The seed of the run.
    """
    size = lengths(tokens, sequence)
    row = np.repeat(np.arange(len(sequence)), size)
    token = _contiguous(tokens, "token")
    offsets = np.append(0, np.cumsum(size)).astype(np.int32)
    # As arrays: transformers asks every element of a list for its type, which takes longer than
    # decoding it.
    responses = [token.to_numpy()[start:stop] for start, stop in pairwise(offsets.tolist())]
    counts = {
        name: np.bincount(
            row, _contiguous(tokens, name).to_numpy(zero_copy_only=False), len(sequence)
        ).astype(np.int32)
        for name in ("intervened", "effective")
    }
    columns = {
        **dict(
            zip(RESPONSES.names, _key_columns([keys[index] for index in sequence]), strict=False)
        ),
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


def _contiguous(table: pa.Table, name: str) -> pa.Array:
    """A column as one array."""
    column = table.column(name).combine_chunks()
    return column if isinstance(column, pa.Array) else pa.array([], table.schema.field(name).type)


def fork_budgets(keys: Sequence[Trajectory], job: Ints, stem_index: Ints) -> list[int | None]:
    """The budgets of the stems that finished jobs were forked from.

    Args:
        keys: The trajectories of a lease.
        job: Finished jobs [F], indices of `keys`.
        stem_index: The job with whose trajectory each of them shares its first tokens [F].

    Returns:
        Budgets [F]. UNLIMITED_CODE is an unlimited one, None a trajectory that is its own stem.
    """
    return [
        None if stem == own else _budget_code(keys[stem])
        for own, stem in zip(job.tolist(), stem_index.tolist(), strict=True)
    ]


def _budget_code(key: Trajectory) -> int:
    return UNLIMITED_CODE if key.budget is None else key.budget
