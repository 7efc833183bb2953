"""What a newcomer sees: the README's command on the embedded pair, and the effect that the pair is
there to show.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from engine.store.run_store import RunStore
from tests.support.engines import OPTIONS, on_kept_engines
from xsample.cli.main import commands


def test_the_readmes_command_makes_a_run_and_loads_the_engines_once(tmp_path: Path) -> None:
    """How long it takes, benchmarks/startup measures."""
    command = ["run", "--budget", "8", "--direction", "reverse", "--out", str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-m", "xsample", *command], capture_output=True, text=True
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert output.count("KV blocks an engine") == 1, "a pair says this when it has been loaded"
    assert "1,600/1,600 sequences" in output
    store = RunStore.read(tmp_path / "run")
    assert store.responses(["tokens"]).num_rows == 1600
    assert store.grades().num_rows == 1600
    assert (tmp_path / "run" / "report" / "index.html").exists()


def test_the_embedded_pair_shows_the_papers_effect(tmp_path: Path) -> None:
    with on_kept_engines():
        command = [
            "run",
            "--budget",
            "0,8",
            "--samples",
            "1",
            "--out",
            str(tmp_path / "run"),
            *OPTIONS,
        ]
        result = CliRunner().invoke(commands, command)
    assert result.exit_code == 0, result.output
    accuracy = accuracies(json.loads((tmp_path / "run" / "summary.json").read_text()))
    assert accuracy["forward", 0] < 0.35, "the base model"
    assert accuracy["reverse", 0] > 0.85, "the RL model"
    assert accuracy["forward", 8] > 0.8, "a few RL tokens suffice"
    assert accuracy["reverse", 8] < 0.4, "a few RL tokens are necessary"


def accuracies(summary: dict[str, Any]) -> dict[tuple[str, int], float]:
    return {(arm["direction"], arm["budget"]): arm["accuracy"] for arm in summary["arms"]}
