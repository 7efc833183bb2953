"""A gated multiple-choice set through the whole command: real engines, then graded again without
its file.
"""

import json
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from engine.store.run_store import RunStore
from tests.support.engines import OPTIONS, on_kept_engines
from xsample.cli.main import commands

COLUMNS = (
    "Record ID",
    "Question",
    "Correct Answer",
    "Incorrect Answer 1",
    "Incorrect Answer 2",
    "Incorrect Answer 3",
)
SECRET = "zebra"  # stands in every question and option
NUM_PROBLEMS, NUM_SAMPLES = 3, 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory; the file that it was made from is gone."""
    folder = tmp_path_factory.mktemp("gpqa")
    file = folder / "mine.csv"
    rows = [
        [f"rec{n}", *(f"{SECRET} {n} {name}" for name in COLUMNS[1:])] for n in range(NUM_PROBLEMS)
    ]
    file.write_text("\n".join(",".join(row) for row in [COLUMNS, *rows]) + "\n")
    with on_kept_engines():
        result = CliRunner().invoke(commands, [
            "run", "--task", "gpqa-diamond", "--task-data", str(file), "--prompt", "plain",
            "--max-tokens", "8", "--samples", str(NUM_SAMPLES), "--budget", "1", "--direction",
            "reverse", "--out", str(folder / "run"), *OPTIONS,
        ])  # fmt: skip
    assert result.exit_code == 0, result.output
    file.unlink()
    return folder / "run"


def invoke(*arguments: str) -> None:
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 0, done.output


def test_the_order_of_the_options_is_stored_with_every_grade(run: Path) -> None:
    store = RunStore.read(run)
    options = {problem.id: problem.options for problem in store.problems()}
    grades = store.grades().to_pylist()
    assert len(grades) == NUM_PROBLEMS * NUM_SAMPLES
    assert all(tuple(grade["options"]) == options[grade["problem"]] for grade in grades)
    for problem in store.problems():
        assert problem.options is not None and sorted(problem.options) == [0, 1, 2, 3]
        assert problem.answer == "ABCD"[problem.options.index(0)]


def test_a_regrade_needs_no_file_and_gives_the_same_bytes(run: Path) -> None:
    before = (run / "grades.parquet").read_bytes()
    invoke("grade", str(run))
    assert (run / "grades.parquet").read_bytes() == before
    invoke("grade", str(run), "--grader", "exact")
    assert json.loads((run / "summary.json").read_text())["grader"] == "exact"


def test_the_text_of_the_set_is_written_nowhere_but_as_the_token_ids_of_the_prompts(
    run: Path,
) -> None:
    assert json.loads((run / "run.json").read_text())["task"]["gated"] is True
    texts = [file for kind in ("json", "html", "csv") for file in run.rglob(f"*.{kind}")]
    assert run / "report" / "index.html" in texts
    assert not [file for file in texts if SECRET in file.read_text()]
    for name in ("problems.parquet", "grades.parquet"):
        assert SECRET not in str(pq.read_table(run / name).to_pylist())


def test_another_task_is_refused_in_the_same_directory_with_its_prompt_named(run: Path) -> None:
    command = [
        "run",
        "--task",
        "arithmetic",
        "--prompt",
        "boxed",
        "--max-tokens",
        "64",
        "--out",
        str(run),
    ]
    done = CliRunner().invoke(commands, command)
    assert done.exit_code == 2
    assert re.search(r"task is 'arithmetic' here, 'gpqa-diamond' there", done.stderr)
    assert re.search(r"template is '.*boxed.*' here, '\{question\}' there", done.stderr)
