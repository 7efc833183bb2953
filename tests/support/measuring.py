"""What tests of measuring share: responses measured by a pair, and tables that must be the same."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from engine.lockstep.job import Job
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.run.plan import Plan
from engine.sampling.rule import Rule
from tests.support.engines import TOLERANCE, floats, keys_of, responses_of

IN_ORDER = [("sequence", "ascending"), ("position", "ascending")]
# What a run decided, and lists whose ties may stand in another order.
_NOT_MEASURED = {
    "intervened", "effective", "primary_token", "sequence", "topk_base", "topk_rl"
}  # fmt: skip


def measured(pair: LeaseRunner, responses: Iterable[tuple[list[int], list[int]]]) -> pa.Table:
    """Rows of prompts with their responses, ordered by (sequence, position)."""
    jobs = [Job(prompt, 0, True, None, len(ids), external=ids) for prompt, ids in responses]
    done = [event for event in pair.run(jobs, Rule()) if isinstance(event, Completed)]
    return pa.concat_tables([completed.tokens for completed in done]).sort_by(IN_ORDER)


def measured_again(pair: LeaseRunner, made: pa.Table, plan: Plan) -> tuple[pa.Table, pa.Table]:
    """The responses of a plan's rows measured by themselves, and these rows in the same order."""
    tokens = responses_of(made)
    order = {key: n for n, key in enumerate(tokens)}
    number = pa.array([order[key] for key in keys_of(made)], pa.int32())
    made = made.append_column("sequence", number).sort_by(IN_ORDER)
    return measured(pair, [(plan.work.prompt(key), ids) for key, ids in tokens.items()]), made


def assert_same_numbers(found: pa.Table, expected: pa.Table) -> None:
    """The same tokens and, wherever `expected` has them, the same numbers to TOLERANCE."""
    assert found["token"].to_pylist() == expected["token"].to_pylist()
    for name in set(found.column_names) - _NOT_MEASURED:
        there = expected[name].is_valid()
        ours, theirs = (table[name].filter(there) for table in (found, expected))
        if pa.types.is_floating(ours.type):
            np.testing.assert_allclose(
                floats(ours), floats(theirs), rtol=0, atol=TOLERANCE, err_msg=name
            )
        else:
            assert ours.to_pylist() == theirs.to_pylist(), name
