"""`score` on a run's own responses gives that run's numbers, through the whole command."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from engine.core import TRAJECTORY_KEY
from engine.store.run_store import RunStore
from engine.store.verify import verify_run
from tests.support.engines import OPTIONS, TOLERANCE, floats, on_kept_engines, undisturbed
from xsample.cli.main import commands

MEASURED = ("js", "entropy_base", "entropy_rl", "logp_base", "logp_rl", "logp_base_of_top1_rl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


@pytest.fixture(scope="module")
def scored(made: RunStore, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    out = tmp_path_factory.mktemp("scored") / "out"
    with on_kept_engines():
        result = CliRunner().invoke(
            commands, ["score", str(made.path), "--out", str(out), "--no-report", *OPTIONS]
        )
    assert result.exit_code == 0, result.output
    return RunStore.read(out)


def in_order(table: pa.Table, *more: str) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in (*TRAJECTORY_KEY, *more)])


def test_every_response_is_there_once_whole_and_as_it_was(made: RunStore, scored: RunStore) -> None:
    assert verify_run(scored).complete
    columns = [*TRAJECTORY_KEY, "prompt_token_ids", "token_ids", "text", "finish_reason"]
    assert in_order(scored.responses(columns)).equals(in_order(made.responses(columns)))
    assert scored.grades().equals(made.grades())


def test_js_entropies_and_logps_are_those_of_the_run_and_also_where_one_policy_had_been_alone(
    made: RunStore, scored: RunStore
) -> None:
    theirs, ours = (in_order(store.tokens().to_table(), "position") for store in (made, scored))
    assert ours["token"].equals(theirs["token"])
    for name in MEASURED:
        there = theirs[name].is_valid().to_numpy()
        assert 0 < there.sum() < len(there)
        assert ours[name].null_count == 0
        # Near ties, where rounding moves a token into or out of a nucleus, would be listed here;
        # there are none.
        np.testing.assert_allclose(
            floats(ours[name])[there], floats(theirs[name])[there], rtol=0, atol=TOLERANCE
        )
