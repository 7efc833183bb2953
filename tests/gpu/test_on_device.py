"""The embedded pair on a GPU, in float32: both of vLLM's model runners, beside the oracle.

    XSAMPLE_TEST_DEVICE=cuda python -m pytest tests/gpu        or: make gpu-test

Model runners must agree token for token. The oracle computes on the CPU: kernels of a GPU multiply
in TF32, so a few near ties may fall the other way there, and numbers are compared loosely.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.core import Trajectory
from engine.models.pair_info import TINY_PAIR
from engine.store.run_store import RunStore
from engine.store.verify import verify_run
from tests.support.engines import floats, keys_of, plan_of, responses_of
from tests.support.reference import Policy, Position, cross_sample

DEVICE = os.environ.get("XSAMPLE_TEST_DEVICE", "")
pytestmark = pytest.mark.skipif(not DEVICE, reason="XSAMPLE_TEST_DEVICE names no device")

SETTINGS: dict[str, Any] = {
    "limit": 8, "samples": 2, "direction": "both", "budget": (0, 2, None), "trace": "full"
}  # fmt: skip
OPTIONS = ["--device", DEVICE, "--dtype", "float32", "--enforce-eager", "--no-report"]
# Logits in TF32 are off by about 1e-3, and js is at most as steep as they are.
LOOSE = 1e-5 if DEVICE == "cpu" else 2e-2
SHARE_OF_EQUAL_RESPONSES = 1.0 if DEVICE == "cpu" else 0.9

RUNNERS = [
    pytest.param("0", id="V1"),
    pytest.param(
        "1", id="V2", marks=pytest.mark.skipif(not find_spec("triton"), reason="there is no Triton")
    ),
]


def xsample(*arguments: object, runner: str) -> None:
    """Run the command, on the GPU that there is or on several."""
    import torch

    share = ["--share-gpu"] if torch.cuda.device_count() == 1 else []
    command = [sys.executable, "-m", "xsample", *map(str, arguments), *OPTIONS, *share]
    done = subprocess.run(
        command,
        env={**os.environ, "VLLM_USE_V2_MODEL_RUNNER": runner},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


_made: dict[str, RunStore] = {}


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    """Value of VLLM_USE_V2_MODEL_RUNNER."""
    return str(request.param)


@pytest.fixture
def made(runner: str, tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    """The run by one model runner."""
    if runner not in _made:
        out = tmp_path_factory.mktemp("gpu") / "run"
        settings = ["--limit", 8, "--samples", 2, "--direction", "both", "--trace", "full"]
        xsample("run", *settings, "--budget", "0,2,unlimited", "--out", out, runner=runner)
        _made[runner] = RunStore.read(out)
    return _made[runner]


@pytest.fixture(scope="module")
def oracle() -> dict[Trajectory, list[Position]]:
    """What the definition of cross-sampling gives."""
    policies = {name: Policy(TINY_PAIR / name) for name in ("base", "rl")}
    plan = plan_of(**SETTINGS)
    return {
        key: cross_sample(
            policies, {"forward": "base", "reverse": "rl"}[key.direction], plan.work.prompt(key),
            key.problem, key.sample, key.budget, rule=plan.rule,
        )
        for key in plan.work.trajectories()
    }  # fmt: skip


def test_every_trajectory_is_there_once_and_whole(made: RunStore) -> None:
    assert verify_run(made).complete


def test_responses_are_the_oracles(
    made: RunStore, oracle: dict[Trajectory, list[Position]]
) -> None:
    ours = responses_of(made.tokens().to_table())
    equal = [ours[key] == [row.token for row in theirs] for key, theirs in oracle.items()]
    assert np.mean(equal) >= SHARE_OF_EQUAL_RESPONSES


@pytest.mark.parametrize("column", ["js", "entropy_base", "entropy_rl", "logp_base", "logp_rl"])
def test_numbers_are_the_oracles_where_the_prefixes_are(
    made: RunStore, oracle: dict[Trajectory, list[Position]], column: str
) -> None:
    table = made.tokens().to_table()
    ours: dict[Trajectory, list[float]] = {}
    for key, value in zip(keys_of(table), floats(table[column]), strict=True):
        ours.setdefault(key, []).append(value)
    tokens = responses_of(table)
    errors = [
        np.abs(np.array(ours[key]) - [getattr(row, column) for row in theirs])
        for key, theirs in oracle.items()
        if tokens[key] == [row.token for row in theirs]
    ]
    assert np.quantile(np.concatenate(errors), 0.99) <= LOOSE


def test_score_gives_the_numbers_of_the_run(made: RunStore, runner: str, tmp_path: Path) -> None:
    out = tmp_path / "scored"
    xsample("score", made.path, "--out", out, runner=runner)
    order = [(name, "ascending") for name in ("direction", "budget", "problem", "sample")]
    theirs, ours = (
        store.tokens().to_table().sort_by([*order, ("position", "ascending")])
        for store in (made, RunStore.read(out))
    )
    assert ours["token"].equals(theirs["token"])
    error = np.abs(floats(ours["js"]) - floats(theirs["js"]))
    assert np.quantile(error, 0.99) <= LOOSE


@pytest.mark.skipif(not find_spec("triton"), reason="there is no Triton")
def test_both_model_runners_make_the_same_responses() -> None:
    assert len(_made) == 2, "run the whole file"
    v1, v2 = (responses_of(_made[runner].tokens().to_table()) for runner in ("0", "1"))
    assert v1 == v2
