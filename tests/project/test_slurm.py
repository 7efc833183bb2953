"""The job scripts as they ship, on a real Slurm: what is stopped comes back and completes, what
failed does not.

That the run is complete is tried with the embedded pair; whether a job goes back into the queue,
which is the scripts' own matter, also with a stand-in for xsample that ends as it is told.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.store.run_store import RunStore
from engine.store.verify import Verification, verify_run
from tests.support.paths import ROOT
from tests.support.slurm_machine import Machine, machine, why_not
from tests.support.waiting import comes_true

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")

SCRIPTS = ROOT / "slurm"
ENDED = ("COMPLETED", "FAILED", "CANCELLED")
RUN = (
    "--limit",
    "2",
    "--samples",
    "2",
    "--budget",
    "0,4",
    "--device",
    "cpu",
    "--no-report",
    "--out",
    "a run",
)
# Without a code it works until it is stopped, the second time it is done at once.
STAND_IN = """#!/bin/bash
echo "start ${SLURM_RESTART_COUNT:-0}: $*"
trap 'sleep 0.5; exit 143' TERM
[[ -z $CODE ]] || exit "$CODE"
((${SLURM_RESTART_COUNT:-0})) || for _ in {1..300}; do sleep 0.1; done
"""

Submit = Callable[..., str]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A Slurm whose jobs find the xsample of this checkout on their PATH, with its interpreter
    beside it.
    """
    programs = tmp_path_factory.mktemp("bin")
    commands = {"xsample": "-m xsample", "ray": "-m ray.scripts.scripts", "python": ""}
    for name, module in commands.items():
        write_program(
            programs / name, f'#!/bin/bash\nPYTHONPATH={ROOT} exec {sys.executable} {module} "$@"\n'
        )
    with machine() as started:
        started.environment |= {
            "PATH": f"{programs}:{started.environment['PATH']}",
            "XSAMPLE_HOME": str(ROOT),
        }
        yield started


@pytest.fixture
def submit(slurm: Machine, tmp_path: Path) -> Submit:
    """Submits from the test's folder; gives the number of the job."""

    def submit(*words: str | Path, **variables: str) -> str:
        return slurm.command(
            "sbatch", "--parsable", *words, cwd=tmp_path, variables=variables
        ).strip()

    return submit


@pytest.fixture
def submit_stand_in(submit: Submit, slurm: Machine, tmp_path: Path) -> Submit:
    """Submits a job in which xsample is the stand-in; `code`: what it ends with, at once."""
    write_program(tmp_path / "bin" / "xsample", STAND_IN)

    def submit_stand_in(*words: str | Path, code: int | str = "", **variables: str) -> str:
        path = f"{tmp_path / 'bin'}:{slurm.environment['PATH']}"
        return submit(*words, CODE=str(code), PATH=path, **variables)

    return submit_stand_in


def write_program(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def has_said(file: Path, words: str) -> bool:
    """Whether the output of a job comes to hold the words."""
    return comes_true(lambda: file.exists() and words in file.read_text())


def verified(run: Path) -> Verification:
    return verify_run(RunStore.read(run))


def test_an_array_shares_a_run_goes_on_where_it_was_stopped_and_the_job_after_it_completes_it(
    slurm: Machine, tmp_path: Path
) -> None:
    words = (SCRIPTS / "submit-array.sh", "2", *RUN, "--limit", "40", "--samples", "4")
    said = slurm.command(*words, cwd=tmp_path)
    numbers = re.fullmatch(r"array (\d+) with 2 tasks, then job (\d+)\n", said)
    assert numbers, said
    array, last = numbers.groups()
    outputs = [tmp_path / f"slurm-{array}_{task}.out" for task in (1, 2)]
    assert has_said(outputs[1], "starting Ray")
    slurm.command("scancel", "--signal=TERM", "--batch", f"{array}_2")  # as at the time limit
    assert has_said(outputs[0], "cross-sampling")
    slurm.command("scontrol", "requeue", f"{array}_1")
    assert slurm.reaches(last, *ENDED).state == "COMPLETED", (
        tmp_path / f"slurm-{last}.out"
    ).read_text()
    assert [slurm.job(f"{array}_{task}").restarts for task in (1, 2)] == [1, 1]
    assert (
        "xsample: stopped; what was finished is kept" in outputs[0].read_text()
    )  # although its engines were ended too
    assert verified(tmp_path / "a run").complete
    assert "loading" not in (tmp_path / f"slurm-{last}.out").read_text()
    assert (tmp_path / "a run" / "summary.json").exists()


def test_a_run_on_two_nodes_is_complete_and_leaves_no_ray_behind(
    slurm: Machine, submit: Submit, tmp_path: Path
) -> None:
    job = submit("--nodes=2", SCRIPTS / "nodes.sbatch", *RUN)
    output = tmp_path / f"slurm-{job}.out"
    assert slurm.reaches(job, *ENDED).state == "COMPLETED", output.read_text()
    assert verified(tmp_path / "a run").complete
    assert "starting Ray on n1 n2" in output.read_text()
    assert list(Path("/tmp").glob(f"ray-{job}-*")) == []


def test_a_preempted_job_is_stopped_in_order_and_comes_back(
    slurm: Machine, submit_stand_in: Submit, tmp_path: Path
) -> None:
    job = submit_stand_in("--nodelist=n1", "--exclusive", SCRIPTS / "node.sbatch", "--out", "x")
    assert has_said(tmp_path / f"slurm-{job}.out", "start 0")
    slurm.command(
        "sbatch", "--nodelist=n1", "--exclusive", "--partition=urgent", "--wrap=true", cwd=tmp_path
    )
    assert slurm.reaches(job, *ENDED).state == "COMPLETED"
    assert slurm.job(job).restarts == 1
    assert "back into the queue" in (tmp_path / f"slurm-{job}.out").read_text()


def test_a_cancelled_job_stays_cancelled(
    slurm: Machine, submit_stand_in: Submit, tmp_path: Path
) -> None:
    job = submit_stand_in(SCRIPTS / "node.sbatch", "--out", "x")
    assert has_said(tmp_path / f"slurm-{job}.out", "start 0")
    slurm.command("scancel", job)
    assert has_said(tmp_path / f"slurm-{job}.out", "ended with 143")
    assert slurm.reaches(job, *ENDED, "PENDING", "REQUEUED").state == "CANCELLED"


@pytest.mark.parametrize("code", [2, 3, 4])
def test_a_run_that_failed_is_not_started_again_and_the_job_has_its_exit_code(
    slurm: Machine, submit_stand_in: Submit, code: int
) -> None:
    job = submit_stand_in(SCRIPTS / "node.sbatch", "--out", "x", code=code)
    ended = slurm.reaches(job, *ENDED)
    assert (ended.state, ended.exit_code, ended.restarts) == ("FAILED", code, 0)


def test_a_job_that_was_started_again_too_often_is_left_alone(
    slurm: Machine, submit_stand_in: Submit, tmp_path: Path
) -> None:
    job = submit_stand_in(SCRIPTS / "node.sbatch", "--out", "x", code=143, XSAMPLE_MAX_RESTARTS="0")
    ended = slurm.reaches(job, *ENDED)
    assert (ended.state, ended.exit_code, ended.restarts) == ("FAILED", 143, 0)
    assert "XSAMPLE_MAX_RESTARTS" in (tmp_path / f"slurm-{job}.out").read_text()


@pytest.mark.parametrize(
    ("words", "asked_for"),
    [
        ((SCRIPTS / "node.sbatch",), "give --out"),
        (("--array=2-3", SCRIPTS / "array.sbatch", "--out", "x"), "give --array=1-N"),
        ((SCRIPTS / "array.sbatch", "--out", "x"), "give --array=1-N"),
    ],
    ids=["no --out", "an array from 2", "no array"],
)
def test_a_job_that_cannot_be_resumed_or_shared_out_is_refused(
    slurm: Machine,
    submit_stand_in: Submit,
    tmp_path: Path,
    words: tuple[str | Path, ...],
    asked_for: str,
) -> None:
    job = submit_stand_in("--output=job.out", *words)
    ended = slurm.reaches(job, *ENDED)
    assert (ended.state, ended.exit_code) == ("FAILED", 2)
    assert asked_for in (tmp_path / "job.out").read_text()


def test_a_job_that_finds_no_xsample_says_where_it_looked(
    slurm: Machine, submit: Submit, tmp_path: Path
) -> None:
    shutil.copytree(SCRIPTS, tmp_path / "slurm")
    job = submit(
        "slurm/node.sbatch", "--out", "x", PATH="/usr/bin:/bin", XSAMPLE_HOME=str(tmp_path)
    )
    assert slurm.reaches(job, *ENDED).exit_code == 2
    assert (
        f"no xsample on PATH nor in {tmp_path}/.venv/bin"
        in (tmp_path / f"slurm-{job}.out").read_text()
    )
