"""The measurements on a GPU go on where they ended, whatever ended them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.gpu import Step, carry_out, collect, result_file, steps, table

BENCHMARK = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
(folder / "count").open("a").write("x")
if sys.argv[2] == "fail":
    sys.exit("it has failed")
if sys.argv[2] == "hang":
    time.sleep(60)
spread = {"median": 2.0, "min": 1.0, "max": 3.0}
file = pathlib.Path(sys.argv[sys.argv.index("--json") + 1])
file.write_text(json.dumps({"measured": {"us": spread}, "ratios": {}}))
"""


MakeStep = Callable[..., Step]


@pytest.fixture
def step_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeStep:
    (tmp_path / "a_benchmark.py").write_text(BENCHMARK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def make(name: str, what: str, seconds: float = 60) -> Step:
        return Step(name, ("a_benchmark", str(tmp_path), what), seconds)

    return make


def test_a_step_is_done_once_and_a_failure_is_tried_again(
    tmp_path: Path, step_of: MakeStep, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen, folder = [step_of("bad", "fail"), step_of("good", "work")], tmp_path / "results"
    carry_out(chosen, "cpu", folder, 100)
    assert "bad: ended with 1" in (output := capsys.readouterr().out)
    assert "it has failed" in output and "good: done" in output
    assert (tmp_path / "count").read_text() == "xx"
    carry_out(chosen, "cpu", folder, 100)
    assert (tmp_path / "count").read_text() == "xxx"
    assert [file.stem for file in folder.glob("*.json")] == ["good"]
    assert list(collect(folder)) == list(collect(folder)) == ["good"]
    assert json.loads((folder / "all.json").read_text())["good"]["measured"]["us"]["median"] == 2
    assert table(chosen, folder).row_count == 2


def test_what_takes_too_long_is_ended_and_what_has_no_time_is_not_begun(
    tmp_path: Path, step_of: MakeStep, capsys: pytest.CaptureFixture[str]
) -> None:
    slow, folder = step_of("slow", "hang", seconds=2), tmp_path / "results"
    carry_out([slow], "cpu", folder, 100)
    assert "slow: took more than 2 s" in capsys.readouterr().out
    assert not result_file(folder, slow).exists()
    carry_out([step_of("late", "work")], "cpu", folder, 1)
    assert "late: no time is left" in capsys.readouterr().out


def test_the_rehearsal_has_the_steps_of_the_real_thing() -> None:
    kinds = [[step.name.split("-")[0] for step in steps(rehearse)] for rehearse in (True, False)]
    assert set(kinds[0]) == set(kinds[1])
    assert len({step.name for step in steps(rehearse=False)}) == len(steps(rehearse=False))
