"""Two sides' traces to rows of the tables: every column where it belongs, null where a side was not
there.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.core import Trajectory
from engine.errors import LockstepError
from engine.lockstep.merge import lengths, merge_sides, rows_of
from engine.run.rows import response_rows, token_rows
from engine.sampling.coupling import couple
from engine.sampling.distribution import Sampling, log_probabilities, nuclei
from engine.sampling.exchange import Rows
from engine.sampling.intervention import decide, follow
from engine.sampling.noise import stream_key
from engine.sampling.rule import Rule
from engine.sampling.trace import Trace
from engine.store.schema import RESPONSES, TOKENS

VOCAB = 12
LENGTHS = (3, 1, 4)  # of the sequences 0, 1, 2
FINISHED = np.arange(3)
KEYS = [
    Trajectory("p0", 0, "forward", 8),
    Trajectory("p0", 1, "reverse", None),
    Trajectory("p1", 0, "forward", 0),
]
OWN = ("entropy", "logp", "rank", "nucleus", "top1")


def traces(seed: int = 0) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """What the two sides of a pair record of three short sequences."""
    sides = Trace(0.1, 3), Trace(0.1, 3)
    generator = torch.Generator().manual_seed(seed)
    for position in range(max(LENGTHS)):
        sequence = np.array([n for n in range(3) if position < LENGTHS[n]])
        num = len(sequence)
        log_p = [log_probabilities(2 * torch.randn(num, VOCAB, generator=generator)) for _ in sides]
        both = base, rl = [nuclei(x, Sampling(1.0, 0.8)) for x in log_p]
        rows = Rows(sequence, np.full(num, position), np.full(num, -1))
        key = np.array(
            [stream_key(0, KEYS[n].problem, KEYS[n].sample) for n in sequence], np.uint64
        )
        coupled = couple(base, rl, np.full(num, True), key, rows.position)
        decisions = decide(Rule(), coupled, np.flatnonzero(coupled.js > 0.1))
        for side in (0, 1):
            sides[side].append(rows, decisions, both[side], both[1 - side].top1, log_p[side])
    return sides[0].collect(FINISHED), sides[1].collect(FINISHED)


def solo() -> pa.RecordBatch:
    """What an engine records of one sequence that it carries alone from position 5 on."""
    trace = Trace(0.1, 3)
    for position in range(5, 8):
        log_p = log_probabilities(torch.randn(1, VOCAB))
        mine = nuclei(log_p, Sampling(1.0, 0.8))
        decisions = follow(mine, np.array([1], np.uint64), np.array([position]))
        trace.append(
            Rows(np.array([0]), np.array([position]), np.array([-1])),
            decisions,
            mine,
            mine.top1,
            log_p,
        )
    return trace.collect(np.array([0]))


def column(table: pa.Table, name: str) -> list[object]:
    values: list[object] = table.column(name).to_pylist()
    return values


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(
        models.WordLevel({"</s>": 0} | {f"w{n}": n for n in range(1, VOCAB)}, unk_token="</s>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="</s>")


def test_each_side_fills_its_own_columns() -> None:
    base, rl = traces()
    table = merge_sides(base, rl)
    for policy, trace in (("base", base), ("rl", rl)):
        for name in OWN:
            assert column(table, f"{name}_{policy}") == column(trace, name)
        assert column(table, f"topk_{policy}") == column(trace, "top_k")
    for name in ("sequence", "position", "token", "intervened", "effective", "primary_token", "js"):
        assert column(table, name) == column(base, name) == column(rl, name)


def test_what_a_side_says_of_the_other_s_best_token_is_named_after_both() -> None:
    base, rl = traces()
    table = merge_sides(base, rl)
    for name in ("logp", "rank"):
        assert column(table, f"{name}_base_of_top1_rl") == column(base, f"{name}_of_other_top1")
        assert column(table, f"{name}_rl_of_top1_base") == column(rl, f"{name}_of_other_top1")
    agree = [
        a == b for a, b in zip(column(table, "top1_base"), column(table, "top1_rl"), strict=True)
    ]
    assert [rank == 1 for rank in column(table, "rank_base_of_top1_rl")] == agree
    assert [rank == 1 for rank in column(table, "rank_rl_of_top1_base")] == agree


@pytest.mark.parametrize("policy", ["base", "rl"])
def test_alone_everything_of_the_other_side_and_js_are_null(policy: str) -> None:
    trace = solo()
    table = merge_sides(trace, None) if policy == "base" else merge_sides(None, trace)
    other = {"base": "rl", "rl": "base"}[policy]
    known = {
        "sequence",
        "position",
        "token",
        "intervened",
        "effective",
        *(f"{name}_{policy}" for name in OWN),
    }
    for name in table.column_names:
        assert table.column(name).null_count == (0 if name in known else table.num_rows), name
    assert column(table, f"entropy_{policy}") == column(trace, "entropy")
    assert table.column(f"entropy_{other}").null_count == 3


@pytest.mark.parametrize(
    "name", ["sequence", "position", "token", "intervened", "effective", "primary_token", "js"]
)
def test_sides_that_decided_differently_are_an_error(name: str) -> None:
    base, rl = traces()
    values = column(rl, name)
    last = next(n for n in reversed(range(len(values))) if values[n] is not None)
    values[last] = (not values[last]) if isinstance(values[last], bool) else values[last] + 1  # type: ignore[operator]
    index = rl.schema.get_field_index(name)
    other = rl.set_column(index, name, pa.array(values, rl.schema.field(name).type))
    with pytest.raises(LockstepError, match=f"different values of '{name}'"):
        merge_sides(base, other)


def test_a_side_with_fewer_rows_is_an_error() -> None:
    base, rl = traces()
    with pytest.raises(LockstepError, match="different values of 'sequence'"):
        merge_sides(base, rl.slice(1))


def test_paired_and_solo_pieces_can_be_put_together() -> None:
    paired, alone = merge_sides(*traces()), merge_sides(solo(), None)
    assert paired.schema == alone.schema
    assert pa.concat_tables([paired, alone]).num_rows == sum(LENGTHS) + 3


@pytest.mark.parametrize("sides", ["both", "base", "rl"])
def test_token_rows_are_rows_of_the_table(sides: str) -> None:
    base, rl = traces()
    table = token_rows(
        merge_sides(None if sides == "rl" else base, None if sides == "base" else rl), KEYS
    )
    table.validate(full=True)
    assert table.schema.equals(TOKENS, check_metadata=True)
    names = TOKENS.names[:4]
    found = [tuple(row[name] for name in names) for row in table.select(names).to_pylist()]
    assert found == [tuple(KEYS[n]) for n in range(3) for _ in range(LENGTHS[n])]


def test_response_rows_are_rows_of_the_table(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = merge_sides(*traces())
    stopped = np.array([True, False, True])
    table = response_rows(
        tokens, KEYS, FINISHED, [[1], [2, 3], [4]], stopped, [None, 8, -1], tokenizer, seed=7
    )
    table.validate(full=True)
    assert table.schema.equals(RESPONSES, check_metadata=True)
    for n, row in enumerate(table.to_pylist()):
        mine = rows_of(tokens, n)
        assert tuple(row[name] for name in RESPONSES.names[:4]) == tuple(KEYS[n])
        assert row["prompt_token_ids"] == [[1], [2, 3], [4]][n]
        assert row["token_ids"] == column(mine, "token")
        assert row["tokens"] == LENGTHS[n]
        assert row["text"] == tokenizer.decode(column(mine, "token"), skip_special_tokens=True)
        assert row["finish_reason"] == ("stop" if stopped[n] else "length")
        assert row["interventions"] == sum(map(bool, column(mine, "intervened")))
        assert row["effective_interventions"] == sum(map(bool, column(mine, "effective")))
        assert (row["forked_from"], row["seed"]) == ([None, 8, -1][n], 7)


def test_response_rows_of_some_sequences_bear_those_sequences_keys(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokens = pa.concat_tables([rows_of(merge_sides(*traces()), n) for n in (0, 2)])
    table = response_rows(
        tokens, KEYS, np.array([0, 2]), [[1], [4]], np.array([True, True]), [None] * 2, tokenizer, 0
    )
    assert column(table, "problem") == ["p0", "p1"]
    assert column(table, "tokens") == [LENGTHS[0], LENGTHS[2]]


def test_no_rows_are_an_empty_table() -> None:
    nothing = token_rows(merge_sides(*(side.slice(0, 0) for side in traces())), KEYS)
    assert nothing.schema.equals(TOKENS)
    assert nothing.num_rows == 0


def test_a_sequence_s_rows_are_found_by_its_number() -> None:
    table = merge_sides(*traces())
    assert lengths(table, FINISHED).tolist() == list(LENGTHS)
    assert lengths(table, np.array([2, 9])).tolist() == [LENGTHS[2], 0]
    for n in range(3):
        assert column(rows_of(table, n), "position") == list(range(LENGTHS[n]))
    assert rows_of(table, 3).num_rows == 0
