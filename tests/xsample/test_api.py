"""`import xsample`: the same runs, tables and errors as the command, from Python."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import xsample
from engine.core import Trajectory
from tests.support.engines import ENGINES, on_kept_engines

SMALL: dict[str, Any] = ENGINES | {"limit": 4, "samples": 2, "budget": [0, 2], "direction": "both"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[xsample.Run]:
    """A finished run of 4 problems, 2 samples, both directions and two budgets."""
    with on_kept_engines():
        out = str(tmp_path_factory.mktemp("api") / "run")
        yield xsample.run(**SMALL, out=out, progress=False)


def test_a_run_has_its_tables_with_units(run: xsample.Run) -> None:
    assert (run.num_expected, run.num_made, run.missing) == (32, 32, [])
    responses = run.responses(["problem", "tokens", "interventions"])
    assert responses.num_rows == 32
    tokens = run.tokens(["js", "intervened"])
    assert tokens.schema.field("js").metadata[b"unit"] == b"nats"
    assert tokens.num_rows == sum(responses["tokens"].to_pylist()) == run.token_dataset.count_rows()
    assert run.grades().num_rows == 32 and run.problems().num_rows == 4
    assert run.failures().num_rows == 0
    assert run.settings["direction"] == "both"
    assert repr(run) == f"Run({str(run.path)!r})"


def test_columns_that_a_table_does_not_have_are_refused_by_name(run: xsample.Run) -> None:
    with pytest.raises(xsample.ConfigError, match="did you mean 'intervened'"):
        run.tokens(["interveened"])
    with pytest.raises(xsample.ConfigError, match="columns has 'nope'"):
        run.responses(["nope"])
    assert run.responses("text").column_names == ["text"]


def test_the_curve_is_the_summary_as_a_table(run: xsample.Run) -> None:
    curve = run.curve()
    assert isinstance(curve, pa.Table)
    arms = run.summary()["arms"]
    assert [(row["direction"], row["budget"]) for row in curve.to_pylist()] == [
        (arm["direction"], arm["budget"]) for arm in arms
    ]
    assert curve["accuracy"].to_pylist() == [arm["accuracy"] for arm in arms]


def test_the_same_settings_in_the_same_process_resume_and_make_nothing_twice(
    run: xsample.Run, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = sorted(run.path.rglob("part-*.parquet"))
    again = xsample.run(**SMALL, out=str(run.path))
    assert again.num_made == 32 and sorted(run.path.rglob("part-*.parquet")) == parts
    shown = capfd.readouterr()
    assert "32/32 sequences" in shown.err and shown.out == ""


def test_other_settings_in_the_same_folder_are_refused(run: xsample.Run) -> None:
    with pytest.raises(xsample.RunDirectoryError, match="seed is 5 here, 0 there"):
        xsample.run(**SMALL, seed=5, out=str(run.path), progress=False)


def test_a_silent_run_shows_nothing(
    tmp_path: Path, run: xsample.Run, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = SMALL | {"limit": 1, "samples": 1, "budget": 0}
    xsample.run(**settings, out=str(tmp_path / "run"), progress=False)
    assert tuple(capfd.readouterr()) == ("", "")


def test_a_plan_says_what_would_be_made_and_starts_nothing(tmp_path: Path) -> None:
    plan = xsample.prepare(**SMALL, out=str(tmp_path / "run"))
    text = str(plan)
    assert "32 (2 samples a problem, direction and budget)" in text
    assert plan.first_prompt in text and str(plan.out) in text
    assert not plan.out.exists()
    with pytest.raises(xsample.ConfigError, match="limit: a plan has its settings already"):
        xsample.run(plan, limit=1)


def test_keywords_go_over_the_file_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("budget: [0, 4]\nseed: 3\n")
    config = xsample.load_config(file, budget=8)
    assert (config.budget, config.seed) == ((8,), 3)
    assert xsample.load_config(budget=[0, None]).budget == (0, None)
    with pytest.raises(xsample.ConfigError, match="did you mean 'budget'"):
        xsample.load_config(budgets=8)


def test_a_file_of_settings_serves_where_a_configuration_does(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("seed: 3\nlimit: 2\n")
    plan = xsample.prepare(tmp_path / "run.yaml", limit=1)
    assert (plan.config.seed, plan.config.limit) == (3, 1)


def test_plans_without_a_folder_do_not_share_one(tmp_path: Path) -> None:
    assert len({xsample.prepare(limit=1, samples=1, seed=seed).out for seed in range(3)}) == 3


def test_a_plan_for_the_folder_of_another_run_is_refused(run: xsample.Run) -> None:
    with pytest.raises(xsample.RunDirectoryError, match="holds another run"):
        xsample.prepare(**SMALL | {"limit": 2}, out=run.path)


def test_paths_are_taken_as_objects_too(tmp_path: Path) -> None:
    (tmp_path / "sums.csv").write_text("id,question,answer\n1,11+22=?,33\n")
    plan = xsample.prepare(
        task=tmp_path / "sums.csv", budget=range(3), max_tokens=64, out=tmp_path / "run"
    )
    assert len(plan.problems) == 1 and plan.config.budget == (0, 1, 2)


def test_settings_of_a_configuration_can_be_overridden_and_its_defaults_override_nothing(
    tmp_path: Path,
) -> None:
    config = xsample.load_config(**SMALL, out=str(tmp_path / "run"))
    plan = xsample.prepare(config, seed=7)
    assert (plan.config.seed, plan.config.limit) == (7, 4)


def test_responses_of_a_run_are_scored_under_its_own_settings(
    run: xsample.Run, tmp_path: Path
) -> None:
    engines = {name: value for name, value in ENGINES.items() if name != "max_model_len"}
    scored = xsample.score(
        run.path, **engines, max_model_len=256, out=str(tmp_path / "scored"), progress=False
    )
    assert scored.num_made == 32
    assert scored.settings["top_p"] == run.settings["top_p"]
    tokens = scored.tokens(["token"])
    assert tokens.num_rows == run.tokens(["token"]).num_rows
    with pytest.raises(xsample.ConfigError, match="seed is '5', but says how responses are made"):
        xsample.score(run.path, seed=5, progress=False)


def test_a_file_of_responses_is_scored(tmp_path: Path, run: xsample.Run) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps({"prompt": "Q: 11+22=?\nA:", "response": " 33"}))
    scored = xsample.score(file, **ENGINES, out=str(tmp_path / "scored"), progress=False)
    assert scored.num_made == 1
    assert scored.responses(["direction"])["direction"].to_pylist() == ["given"]


def test_report_and_page_are_written_where_they_are_said_to_be(
    run: xsample.Run, tmp_path: Path
) -> None:
    assert run.report() == run.path / "report" / "index.html"
    problem = run.problems()["problem"][0].as_py()
    page = run.inspect(problem, sample=1)
    assert page.parent == run.path / "inspector" and page.is_file()
    assert run.inspect(problem, out=tmp_path / "page.html").read_bytes()
    both = xsample.report([run, run.path], tmp_path / "report")
    assert both == tmp_path / "report" / "index.html" and both.is_file()
    with pytest.raises(xsample.UsageError, match="problem 'none' is not in run"):
        run.inspect("none")


def test_a_run_is_graded_again_to_the_same_grades(run: xsample.Run) -> None:
    before = run.grades()
    assert run.grade().grades().equals(before)


def test_an_unknown_grader_is_refused(run: xsample.Run) -> None:
    with pytest.raises(xsample.ConfigError, match="grader is 'foo': give one of math"):
        run.grade("foo")  # type: ignore[arg-type]


def test_a_run_leaves_logging_as_it_was(run: xsample.Run) -> None:
    assert not [handler for handler in logging.getLogger().handlers if "logs" in repr(handler)]
    assert logging.getLogger("xsample").level == logging.NOTSET


def test_a_growing_run_is_read_as_it_was_when_it_was_opened(
    run: xsample.Run, tmp_path: Path
) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    for part in [*copy.glob("tokens/part-*"), *copy.glob("responses/part-*")]:
        part.unlink()
    opened = xsample.open_run(copy)
    assert opened.num_made == 0 and len(opened.missing) == 32
    assert isinstance(opened.missing[0], Trajectory)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(xsample.RunDirectoryError, match=r"holds no run\.json"):
        xsample.open_run(tmp_path)


def test_the_task_sets_are_listed() -> None:
    assert [task.name for task in xsample.tasks()] == [
        "aime24", "aime25", "arithmetic", "gpqa-diamond",
    ]  # fmt: skip
