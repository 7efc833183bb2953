"""Forks: where a smaller budget parts from the trajectory that was made with a larger one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.lockstep.fork import branch, stems

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


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=20))
def test_stems_hold_every_job_once_with_the_largest_budget_last(
    jobs: list[tuple[str, int]],
) -> None:
    names, budgets = [name for name, _ in jobs], [budget for _, budget in jobs]
    groups = stems(names, budgets)
    assert sorted(index for group in groups for index in group) == list(range(len(jobs)))
    assert [names[group[0]] for group in groups] == list(dict.fromkeys(names))
    for group in groups:
        assert {names[index] for index in group} == {names[group[0]]}
        assert [budgets[index] for index in group] == sorted(budgets[index] for index in group)
