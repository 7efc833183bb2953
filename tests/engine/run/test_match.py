"""The run that a control matches: its counts by trajectory, and every way in which it can be the
wrong run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core import Trajectory
from engine.errors import ConfigError, RunDirectoryError
from engine.run.match import Matched, check_num_positions, read_match
from engine.store.run_store import RunStore
from engine.store.schema import RESPONSES, TOKENS

IDENTITY: dict[str, Any] = {
    "base": "B",
    "rl": "R",
    "ids_answers_and_prompts": "abc",
    "max_tokens": 64,
    "seed": 0,
}
KEYS = [
    Trajectory(problem, sample, direction, budget)
    for problem in ("a", "b")
    for sample in (0, 1)
    for direction in ("forward", "reverse")
    for budget in (0, 8, None)
]
BLANK: dict[str, Any] = {
    **dict.fromkeys(("text", "finish_reason"), ""),
    **dict.fromkeys(("prompt_token_ids", "token_ids"), ()),
    **dict.fromkeys(("effective_interventions", "seed"), 0),
}
# A trajectory with budget 0 is the primary's plain response; here they have 10, 13, 16, ... tokens.
COUNTS = {key: Matched(number, 10 + number - number % 3) for number, key in enumerate(KEYS)}


def write_run(
    path: Path, counts: dict[Trajectory, Matched], num_parts: int = 1, **identity: object
) -> Path:
    with RunStore.open(path, {"identity": IDENTITY | identity}) as store:
        rows = [
            BLANK
            | key._asdict()
            | {"interventions": found.interventions, "tokens": found.position_limit or 7}
            for key, found in counts.items()
        ]
        for part in range(num_parts):
            store.commit(
                TOKENS.empty_table(), pa.Table.from_pylist(rows[part::num_parts], RESPONSES)
            )
    return path


def refusal(run: Path, identity: dict[str, Any] = IDENTITY, keys: list[Trajectory] = KEYS) -> str:
    with pytest.raises(ConfigError) as error:
        read_match(run, keys, identity)
    assert str(error.value).startswith(f"match is {str(run)!r}") and "\n" not in str(error.value)
    return str(error.value)


@settings(deadline=None, max_examples=20)
@given(st.sets(st.sampled_from(KEYS), min_size=1), st.integers(1, 3))
def test_every_trajectory_gets_its_own_counts_and_no_other_is_there(
    tmp_path_factory: pytest.TempPathFactory, wanted: set[Trajectory], num_parts: int
) -> None:
    run = write_run(tmp_path_factory.mktemp("runs") / "run", COUNTS, num_parts)
    assert read_match(run, iter(wanted), IDENTITY) == {key: COUNTS[key] for key in wanted}


def test_an_unlimited_budget_is_matched_with_an_unlimited_one(tmp_path: Path) -> None:
    unlimited, eight = KEYS[2], KEYS[1]
    assert (unlimited.budget, eight.budget) == (None, 8)
    run = write_run(tmp_path / "run", {unlimited: Matched(40, 60)})
    assert read_match(run, [unlimited], IDENTITY) == {unlimited: Matched(40, None)}
    assert "lacks 1 of 1 trajectories" in refusal(run, keys=[eight])


def test_what_is_lacking_is_counted_and_the_first_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {key: COUNTS[key] for key in KEYS[:7]})
    said = refusal(run)
    assert f"lacks {len(KEYS) - 7} of {len(KEYS)} trajectories, the first: {KEYS[7]};" in said
    assert "give direction, budget and samples as that run" in said and "or complete it" in said


@pytest.mark.parametrize(
    ("differs", "names"),
    [
        ({"base": "C"}, "other base model ('B' there, 'C' here)"),
        ({"rl": "C"}, "other rl model ('R' there, 'C' here)"),
        ({"ids_answers_and_prompts": "xyz"}, "another limit, too"),
        ({"max_tokens": 65}, "other max_tokens (64 there, 65 here)"),
    ],
)
def test_another_run_is_refused_with_what_is_other(
    tmp_path: Path, differs: dict[str, Any], names: str
) -> None:
    said = refusal(write_run(tmp_path / "run", COUNTS), IDENTITY | differs)
    assert names in said and "give models, task, prompt, limit and max_tokens as that run" in said


def test_everything_that_is_other_is_named_at_once(tmp_path: Path) -> None:
    said = refusal(write_run(tmp_path / "run", COUNTS, base="C", max_tokens=1))
    assert "base model" in said and "max_tokens (1 there" in said and "rl model" not in said


def test_what_may_differ_between_a_run_and_its_control_does_not_matter(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", COUNTS, seed=9, criterion="js", threshold=0.1)
    assert read_match(run, KEYS, IDENTITY | {"criterion": "random"}) == COUNTS


@pytest.mark.parametrize("identity", [{}, None, [1]])
def test_a_run_that_does_not_say_what_it_is_is_refused(tmp_path: Path, identity: Any) -> None:
    RunStore.open(tmp_path / "run", {"identity": identity}).close()
    assert "base model (None there" in refusal(tmp_path / "run")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"holds no run\.json"):
        read_match(tmp_path, KEYS, IDENTITY)


def test_the_matched_run_may_still_be_written(tmp_path: Path) -> None:
    write_run(tmp_path / "run", COUNTS)
    with RunStore.open(tmp_path / "run", {"identity": IDENTITY}):
        assert read_match(tmp_path / "run", KEYS, IDENTITY) == COUNTS


def test_the_empty_table_of_a_run_that_has_begun_lacks_everything(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {}, num_parts=0)
    assert f"lacks {len(KEYS)} of {len(KEYS)}" in refusal(run)


def test_a_window_that_cannot_hold_the_counts_is_refused_with_both_numbers(tmp_path: Path) -> None:
    check_num_positions(tmp_path, COUNTS, "3:", 3, 3 + len(KEYS) - 1)
    with pytest.raises(ConfigError) as error:
        check_num_positions(tmp_path, COUNTS, ":5", 0, 5)
    assert f"has {len(KEYS) - 1} interventions" in str(
        error.value
    ) and "':5', which holds 5 positions" in str(error.value)


def test_a_scored_run_is_no_run_to_match(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", COUNTS, responses="abc")
    assert "`xsample score` made" in refusal(run)
