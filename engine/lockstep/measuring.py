"""Measuring: both policies' numbers at the positions of responses that are there already.

Nothing is in lock-step. Each engine computes prompt and response as one prompt, at its own pace,
and sends what it has measured. Here the two sides are joined by position, and what needs both of
them follows: the divergence, and each policy's numbers of the other's most probable token. These
stand in the policy's own list of most probable tokens. The few that do not are asked for when all
else is done, by a second look at their responses.

Dimensions: N positions, K tokens of a list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from engine.arrays import Bools, Ints
from engine.core import POLICIES
from engine.errors import EngineError
from engine.lockstep.engine_pair import EnginePair
from engine.lockstep.merge import merge_sides
from engine.lockstep.worker import Decided
from engine.sampling.distribution import Nuclei
from engine.sampling.intervention import Decisions, score
from engine.sampling.prefill import Targets
from engine.sampling.sampler import SamplerConfig

LIST_LENGTH = 32
"""Tokens of a policy's list, unless longer ones are recorded.

Hardly ever is the most probable token of one policy not among so many of the other's.
"""

_OTHER = {"base": "rl", "rl": "base"}


class Response(NamedTuple):
    """A response, or the end of one, that is to be measured."""

    prompt: list[int]
    """Token ids."""
    tokens: list[int]
    """Token ids of the whole response."""
    start: int = 0
    """Positions from this one on are measured."""


def measure_responses(
    engines: EnginePair, responses: Sequence[Response], config: SamplerConfig
) -> Iterator[pa.Table | Decided]:
    """Measure responses on both engines.

    Args:
        engines: The two engines; no phase is under way.
        responses: The responses.
        config: What is recorded, from the settings of either sampler.

    Yields:
        Merged rows of whole responses, as `merge_sides` gives them, ordered by (sequence,
        position); `sequence` is the index of the response. And `Decided` messages.

    Raises:
        EngineError: An engine failed, or has not measured what it was asked for.
    """
    targets = _targets_of(responses, max(LIST_LENGTH, config.record_top_k))
    texts = [response.prompt + response.tokens[:-1] for response in responses]
    waiting: dict[str, list[pa.Table]] = {policy: [] for policy in POLICIES}
    incomplete: list[pa.Table] = []
    for policy, message in engines.measure(dict.fromkeys(POLICIES, (texts, targets))):
        if isinstance(message, Decided):
            if policy == POLICIES[0]:  # both engines measure the same positions
                yield message
            continue
        waiting[policy].append(message)
        if base_and_rl := _take_common(waiting, targets):
            whole, rest = _split(_join(*base_and_rl, responses, targets, config))
            incomplete.append(rest)
            if whole.num_rows:
                yield whole
    if any(rows.num_rows for rows in _concat(waiting).values()):
        raise EngineError("one engine measured responses that the other did not")
    rest = pa.concat_tables(incomplete)
    if rest.num_rows:
        yield _second_look(engines, responses, rest)


def _targets_of(responses: Sequence[Response], list_length: int) -> Targets:
    sizes = np.array([len(response.tokens) - response.start for response in responses])
    first = [len(response.prompt) + response.start - 1 for response in responses]
    tokens = [np.array(response.tokens[response.start :], np.int64) for response in responses]
    return Targets(
        np.repeat(np.arange(len(responses)), sizes),
        np.concatenate([np.arange(n) + i for n, i in zip(sizes, first, strict=True)]),
        np.concatenate(tokens),
        list_length,
    )


def _concat(tables: dict[str, list[pa.Table]]) -> dict[str, pa.Table]:
    return {policy: pa.concat_tables(parts) for policy, parts in tables.items()}


def _take_common(
    waiting: dict[str, list[pa.Table]], targets: Targets
) -> tuple[pa.Table, pa.Table] | None:
    """Take out the rows of all sequences that both sides have sent, base's and rl's.

    Returns:
        The same targets of both, ascending; None where there are none.
    """
    if not all(waiting.values()):
        return None
    rows = _concat(waiting)
    sequence = {
        policy: targets.sequence[side["target"].to_numpy()] for policy, side in rows.items()
    }
    common = np.intersect1d(*sequence.values())
    taken = []
    for policy, side in rows.items():
        is_common = np.isin(sequence[policy], common)
        waiting[policy] = [side.filter(pa.array(~is_common))]
        taken.append(side.filter(pa.array(is_common)).sort_by("target").combine_chunks())
    wanted = np.flatnonzero(np.isin(targets.sequence, common))
    if not all(np.array_equal(side["target"].to_numpy(), wanted) for side in taken):
        raise EngineError("an engine has not measured every position of a response")
    return (taken[0], taken[1]) if len(common) else None


def _join(
    base: pa.Table,
    rl: pa.Table,
    responses: Sequence[Response],
    targets: Targets,
    config: SamplerConfig,
) -> pa.Table:
    """Both sides' rows of the same targets, merged; null where a list does not hold a number."""
    target = base["target"].to_numpy()
    sequence, token = targets.sequence[target], targets.token[target]
    num_prompt = np.array([len(response.prompt) for response in responses])
    position = targets.index[target] + 1 - num_prompt[sequence]
    nuclei = (_nuclei(base), _nuclei(rl))
    decisions = score(*nuclei, token)
    recorded = decisions.js >= config.record_threshold
    sides = []
    for side, own, other in zip((base, rl), nuclei, reversed(nuclei), strict=True):
        columns = _decided(sequence, position, decisions) | {
            "nucleus": pa.array(own.size.astype(np.int32)),
            "top1": pa.array(own.top1.astype(np.int32)),
            **{name: side[name].combine_chunks() for name in ("entropy", "logp", "rank")},
            **_numbers_of_other(side, other.top1),
            "top_k": _lists(side, recorded, config.record_top_k),
        }
        sides.append(pa.RecordBatch.from_pydict(columns))
    return merge_sides(*sides)


def _decided(sequence: Ints, position: Ints, decisions: Decisions) -> dict[str, pa.Array]:
    """The columns that are the same on both sides."""
    return {
        "sequence": pa.array(sequence.astype(np.int32)),
        "position": pa.array(position.astype(np.int32)),
        "token": pa.array(decisions.token.astype(np.int32)),
        "intervened": pa.array(decisions.intervened),
        "effective": pa.array(decisions.effective),
        "primary_token": pa.nulls(len(sequence), pa.int32()),
        "js": pa.array(decisions.js.astype(np.float32)),
    }


def _numbers_of_other(side: pa.Table, other_top1: Ints) -> dict[str, pa.Array]:
    """A side's log-probability and rank of the other's best token, from its list; else null."""
    top, log_p = _matrix(side["top"]), _matrix(side["top_logp"])
    is_it = top == other_top1[:, None]
    is_missing = ~is_it.any(1)
    log_p_of_it = np.take_along_axis(log_p, is_it.argmax(1)[:, None], 1)
    rank = (log_p > log_p_of_it).sum(1, dtype=np.int32) + 1
    return {
        "logp_of_other_top1": pa.array(log_p_of_it[:, 0], mask=is_missing),
        "rank_of_other_top1": pa.array(rank.astype(np.int32), mask=is_missing),
    }


def _lists(side: pa.Table, recorded: Bools, length: int) -> pa.Array:
    """The first tokens of the lists of those rows that are recorded; null elsewhere."""
    top = np.ascontiguousarray(_matrix(side["top"])[recorded, :length])
    offsets = np.append(0, np.cumsum(recorded) * top.shape[1]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(top.ravel()), mask=pa.array(~recorded)
    )


def _nuclei(side: pa.Table) -> Nuclei:
    token, p = (side[name].combine_chunks() for name in ("nucleus_token", "nucleus_p"))
    return Nuclei(
        token.value_lengths().to_numpy().astype(np.int64),
        token.flatten().to_numpy().astype(np.int64),
        p.flatten().to_numpy(),
    )


def _matrix(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column of lists of one length [N, K]."""
    array = column.combine_chunks()
    return np.asarray(array.flatten()).reshape(len(array), array.type.list_size)


def _split(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The rows of sequences that have all numbers, and the rows of the others."""
    is_missing = np.zeros(rows.num_rows, np.bool_)
    for policy in POLICIES:
        is_missing |= rows[f"rank_{policy}_of_top1_{_OTHER[policy]}"].is_null().to_numpy()
    sequence = rows["sequence"].to_numpy()
    is_incomplete = np.isin(sequence, sequence[is_missing])
    return rows.filter(pa.array(~is_incomplete)), rows.filter(pa.array(is_incomplete))


def _second_look(engines: EnginePair, responses: Sequence[Response], rows: pa.Table) -> pa.Table:
    """Ask each engine for the numbers that its lists did not hold.

    Args:
        engines: The two engines.
        responses: All responses.
        rows: Merged rows that have nulls for these numbers.

    Returns:
        The rows, ordered by (sequence, position), without the nulls.
    """
    rows = rows.sort_by([("sequence", "ascending"), ("position", "ascending")]).combine_chunks()
    work: dict[str, tuple[list[list[int]], Targets]] = {}
    for policy in POLICIES:
        missing = rows.filter(rows[f"rank_{policy}_of_top1_{_OTHER[policy]}"].is_null())
        if missing.num_rows:
            work[policy] = _questions(responses, missing, f"top1_{_OTHER[policy]}")
    answers: dict[str, list[pa.Table]] = {policy: [] for policy in work}
    for side, message in engines.measure(work):
        if not isinstance(message, Decided):
            answers[side].append(message)
    for side, found in _concat(answers).items():
        found = found.sort_by("target")
        if not np.array_equal(found["target"].to_numpy(), np.arange(len(work[side][1].token))):
            raise EngineError("an engine has not measured every position that it was asked for")
        for name in ("logp", "rank"):
            column = f"{name}_{side}_of_top1_{_OTHER[side]}"
            old = rows[column].combine_chunks()
            new = pc.replace_with_mask(old, old.is_null(), found[name].combine_chunks())
            rows = rows.set_column(rows.column_names.index(column), column, new)
    return rows


def _questions(
    responses: Sequence[Response], missing: pa.Table, token: str
) -> tuple[list[list[int]], Targets]:
    """The texts and targets that measure a column of tokens at some merged rows."""
    sequences, number = np.unique(missing["sequence"].to_numpy(), return_inverse=True)
    asked = [responses[sequence] for sequence in sequences]
    num_prompt = np.array([len(response.prompt) for response in asked])
    index = num_prompt[number] + missing["position"].to_numpy() - 1
    last = np.maximum.reduceat(index, np.flatnonzero(np.diff(number, prepend=-1)))
    texts = [
        (response.prompt + response.tokens)[: end + 1]
        for response, end in zip(asked, last, strict=True)
    ]
    return texts, Targets(number, index, missing[token].to_numpy().astype(np.int64), 1)
