"""Forks: where a smaller budget parts from the trajectory that was made with a larger one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.lockstep.fork import branch, group_forks

# Of each row: no intervention, one that changed nothing, one that changed the token.
flags = st.lists(st.sampled_from([(False, False), (True, False), (True, True)]), max_size=30)


@given(flags, st.integers(0, 12))
def test_a_branch_is_what_counting_interventions_row_by_row_gives(
    rows: list[tuple[bool, bool]], budget: int
) -> None:
    left, spent, shared = budget, len(rows), len(rows)
    for position, (intervened, effective) in enumerate(rows):
        if left == 0 and spent == len(rows):
            spent = position
        if left == 0 and effective:
            shared = position
            break
        left -= intervened and left > 0
    flags = np.array(rows, np.bool_).reshape(-1, 2)
    assert branch(flags[:, 0], flags[:, 1], budget) == (spent, shared)


@given(flags, st.integers(0, 12))
def test_a_larger_budget_shares_no_less(rows: list[tuple[bool, bool]], budget: int) -> None:
    flags = np.array(rows, np.bool_).reshape(-1, 2)
    smaller, larger = (branch(flags[:, 0], flags[:, 1], b) for b in (budget, budget + 1))
    assert smaller.spent <= larger.spent <= len(rows)
    assert smaller.shared <= larger.shared <= len(rows)
    assert smaller.spent <= smaller.shared


@given(st.lists(st.sampled_from(["a", "b", "c", None]), max_size=20))
def test_a_group_holds_every_index_of_a_key_and_none_is_a_group_alone(
    keys: list[str | None],
) -> None:
    groups = group_forks(keys)
    assert sorted(index for group in groups for index in group) == list(range(len(keys)))
    assert [group[0] for group in groups] == sorted(group[0] for group in groups)
    for group in groups:
        assert group == sorted(group)
        assert len({keys[index] for index in group}) == 1
        assert len(group) == 1 or keys[group[0]] is not None
    assert len(groups) == len({key for key in keys if key is not None}) + keys.count(None)
