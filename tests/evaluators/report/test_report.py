"""What is in a report of small runs: whole, in part, several at once; nothing is drawn or written
here.
"""

from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv

from engine.errors import RunDirectoryError
from engine.store.run_store import RunStore
from evaluators.database.run_tables import open_database
from evaluators.figures.accuracy import by_budget, by_share
from evaluators.report.build import build_report, compare, known_files
from evaluators.report.csv_file import to_csv
from evaluators.report.page import render
from evaluators.report.runs import open_runs
from evaluators.report.sections import SECTIONS
from tests.support.report_runs import (
    LENGTH,
    PROBLEMS,
    QUESTION,
    drop_columns,
    grade,
    make_run,
    matching,
    set_manifest,
)

CONTROL: dict[str, Any] = {"criterion": "random", "threshold": None, "match": "elsewhere/sweep"}
HOSTILE = "</style></title><script>alert(1)</script><img src=x onerror=alert(2)>"


class Report(NamedTuple):
    """All but the figures."""

    tables: dict[str, pa.Table]
    notes: list[str]
    page: str
    stages: list[str]

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.tables[table].to_pylist()
        return rows

    def about(self, *words: str) -> list[str]:
        return [note for note in self.notes if all(word in note for word in words)]


def report_of(*runs: Path, show_text: bool = False) -> Report:
    stages: list[str] = []
    with open_database() as database:
        content = compare(database, open_runs(database, runs), stages.append, show_text)
        page = render(content.runs, SECTIONS, content.results, {}, content.notes)
    return Report(content.results.tables, content.notes, page, stages)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "sweep")


@pytest.fixture(scope="module")
def report(sweep: Path) -> Report:
    return report_of(sweep)


# One run


def test_a_whole_run_gives_every_table_but_those_of_checkpoints(report: Report) -> None:
    tables = {Path(name).stem for name in known_files() if name.startswith("tables/")}
    assert report.tables.keys() == tables - {"js_by_step", "high_overlap"}
    assert report.notes == []


def test_every_table_begins_with_the_run(report: Report) -> None:
    for table in report.tables.values():
        assert table.column_names[:2] == ["run", "direction"] and set(table["run"].to_pylist()) == {
            "sweep"
        }


def test_shares_and_coverage_in_the_page_are_those_of_the_rows(report: Report, sweep: Path) -> None:
    tokens = RunStore.read(sweep).tokens().to_table(filter=pc.field("budget").is_null())
    forward = tokens.filter(pc.equal(tokens["direction"], "forward"))
    high = 100 * pc.mean(pc.greater(forward["js"], 0.1).cast(pa.float64())).as_py()
    assert forward.num_rows == len(PROBLEMS) * 2 * LENGTH
    row = f"<td>{forward.num_rows}</td><td>{forward.num_rows}</td><td>100.0</td>"
    assert re.search(rf"{row}<td>[0-9.]+</td><td>{high:.1f}</td>", report.page)


def test_the_same_run_gives_the_same_tables_and_page(report: Report, sweep: Path) -> None:
    again = report_of(
        sweep
    )  # a sum of floats that was taken in another order may differ in its last digit
    assert {n: to_csv(t) for n, t in again.tables.items()} == {
        n: to_csv(t) for n, t in report.tables.items()
    }
    assert again.page == report.page


def test_the_stages_are_told_in_order(report: Report) -> None:
    assert report.stages[0] == "sweep: accuracy" and report.stages[-1] == "comparing runs"
    assert report.stages.index("sweep: sparsity") < report.stages.index("sweep: mechanics")


# Runs of which something is missing


def test_an_ungraded_run_has_all_but_accuracy_and_says_which_command_grades_it(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "run", graded=False)
    report = report_of(run)
    assert "accuracy" not in report.tables and "js_histogram" in report.tables
    assert report.about("not graded", f"xsample grade {run}")
    assert "not graded" in report.page


def test_responses_without_a_grade_are_left_out_of_accuracy_and_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", graded=False)
    store = RunStore.read(run)
    keys = list(store.expected())
    grade(store, keys[:30], np.random.default_rng(0))
    report = report_of(run)
    assert report.about(f"{len(keys) - 30} of {len(keys)} responses have no grade", "xsample grade")
    assert pc.sum(report.tables["accuracy"]["responses"]).as_py() == 30


def test_grades_that_cannot_be_read_are_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "grades.parquet").write_bytes(b"PAR1 or not")
    report = report_of(run)
    assert report.about("grades.parquet cannot be read", "xsample grade")
    assert "accuracy" not in report.tables


def test_an_incomplete_run_is_reported_with_how_much_of_it_is_there(tmp_path: Path) -> None:
    report = report_of(make_run(tmp_path / "run", missing=5))
    assert "31 of 36" in report.page
    assert "js_histogram" in report.tables


def test_a_run_without_responses_is_a_page_that_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", missing=36, graded=False)
    report = report_of(run)
    assert report.tables == {}
    assert report.about("run:", "no responses")
    assert "0 of 36" in report.page


def test_a_run_without_a_column_lacks_only_what_needs_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    drop_columns(run, ["topk_base", "topk_rl"])
    set_manifest(run, schema_version=2)
    report = report_of(run)
    assert "topk_overlap" not in report.tables and "top1_ranks" in report.tables
    assert report.about("topk_base", "make the run again")
    assert len(report.notes) == 2, "the version, and what it lacks"


def test_an_unfinished_run_is_said_with_what_that_means(tmp_path: Path) -> None:
    report = report_of(make_run(tmp_path / "run", missing=5))
    assert report.about("run: 5 of 36 trajectories are missing", "short responses finish first")
    assert "5 of 36 trajectories are missing" in report.page


def test_trajectories_that_are_there_twice_are_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for folder in ("tokens", "responses"):
        shutil.copy(run / folder / "part-000000.parquet", run / folder / "part-000009.parquet")
    report = report_of(run)
    assert report.about("18 trajectories occur more than once", "xsample verify")
    assert not report.about("missing")


def test_a_run_without_the_texts_of_its_tokens_shows_their_ids_and_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "vocabulary.parquet").unlink()
    report = report_of(run)
    assert report.about("no vocabulary.parquet")
    assert set(report.tables["frequent_tokens"]["text"].to_pylist()) == {
        f"#{token}" for token in range(6)
    }


def test_a_vocabulary_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "vocabulary.parquet").write_bytes(b"garbage")
    report = report_of(run)
    assert report.about("vocabulary.parquet cannot be read", "shown by their ids")
    assert "#0" in report.tables["frequent_tokens"]["text"].to_pylist()


def test_a_page_that_is_damaged_inside_is_left_out_of_every_number(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    part = run / "tokens" / "part-000000.parquet"
    content = bytearray(part.read_bytes())
    content[200 : len(content) // 2] = bytes(len(content) // 2 - 200)
    part.write_bytes(content)
    report = report_of(run)
    assert report.about("part-000000.parquet", "left out")
    assert pc.sum(report.tables["accuracy"]["responses"]).as_py() == 18
    shares = report.rows("js_shares")
    assert {(row["direction"], row["tokens"]) for row in shares} <= {
        ("forward", 36),
        ("reverse", 36),
    }


def test_a_run_that_no_policy_pair_measured_has_its_accuracy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    drop_columns(run, ["js"])
    report = report_of(run)
    assert report.tables.keys() == {"accuracy", "accuracy_differences"}
    assert report.about("no position was measured by both policies")


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_a_folder_that_is_no_run_is_refused_and_left_as_it_was(folder: str, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"holds no run\.json|does not exist"):
        build_report([tmp_path / folder], tmp_path / folder / "report")
    assert list(tmp_path.iterdir()) == []


# Several runs


def test_runs_are_compared_side_by_side_under_names_that_tell_them_apart(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / folder / "js", number=number)
        for number, folder in enumerate(("a", "b"))
    ]
    report = report_of(*runs, runs[0])
    assert set(report.tables["js_histogram"]["run"].to_pylist()) == {"a/js", "b/js"}
    between = [
        row for row in report.rows("accuracy_differences") if row["run"] != row["against_run"]
    ]
    assert {(row["run"], row["against_run"], row["pairs"]) for row in between} == {
        ("b/js", "a/js", 6)
    }
    assert len(between) == 6


def test_runs_whose_names_differ_in_case_only_stay_apart(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, number=number) for number, name in enumerate(("Js", "js"))]
    both, alone = report_of(*runs), report_of(runs[0])
    first = [row for row in both.rows("js_shares") if row["run"] == "Js"]
    assert {row["run"] for row in both.rows("js_shares")} == {"Js", "js (2)"}
    assert first == alone.rows("js_shares")


def test_a_control_is_marked_and_taken_from_its_run_whatever_the_order(tmp_path: Path) -> None:
    run = make_run(tmp_path / "sweep")
    control = make_run(tmp_path / "random", config=CONTROL, identity=matching(run), number=1)
    report = report_of(control, run)
    accuracy = report.rows("accuracy")
    assert {(row["run"], row["control"]) for row in accuracy} == {
        ("sweep", False),
        ("random", True),
    }
    rows = report.rows("accuracy_differences")
    assert {row["run"] for row in rows if row["against_run"] == "random" != row["run"]} == {"sweep"}
    assert not [row for row in rows if row["run"] == "random" and row["against_run"] == "sweep"]


def test_a_run_with_other_interventions_is_not_taken_for_the_one_that_a_control_matches(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path / "sweep", number=7)
    control = make_run(
        tmp_path / "random", config=CONTROL, identity=matching(make_run(tmp_path / "matched"))
    )
    report = report_of(control, run)
    assert report.about("random", "elsewhere/sweep", "not given, or has changed since")
    assert not any(report.tables["accuracy"]["control"].to_pylist())


def test_given_responses_are_marked_and_are_no_models_accuracy(tmp_path: Path) -> None:
    run = make_run(tmp_path / "scored", identity={"responses": "x"})
    report = report_of(run)
    assert all(report.tables["accuracy"]["given"].to_pylist())
    assert "accuracy_differences" not in report.tables
    assert "scored (responses given)" in report.page and "0 (RL)" not in report.page
    assert (
        by_budget(report.tables["accuracy"]) is None and by_share(report.tables["accuracy"]) is None
    )


def test_models_without_a_step_are_no_evolution_and_one_of_them_is_said(tmp_path: Path) -> None:
    models = ("org/SFT-v3", "org/DAPO-v1")
    runs = [
        make_run(tmp_path / name, identity={"rl": rl}, rl=rl)
        for name, rl in zip("ab", models, strict=True)
    ]
    report = report_of(*runs)
    assert "js_by_step" not in report.tables and "whose names contain their step" in report.page
    steps = [
        make_run(tmp_path / f"s{n}", identity={"rl": str(n)}, rl=f"m/step_{n}") for n in (1, 2)
    ]
    report = report_of(*steps, runs[0])
    assert {row["step"] for row in report.rows("js_by_step")} == {1, 2}
    assert report.about("a: its RL model's name contains no step")


def test_a_control_without_its_run_is_said(tmp_path: Path) -> None:
    report = report_of(make_run(tmp_path / "random", config=CONTROL))
    assert report.about("random", "elsewhere/sweep", "not given")
    assert not any(report.tables["accuracy"]["control"].to_pylist())


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"identity": {"seed": 1}}, "seed"),
        ({"identity": {"ids_answers_and_prompts": "y"}}, "problems"),
        ({"grader": "exact"}, "grader"),
    ],
)
def test_runs_whose_samples_are_not_alike_have_no_paired_differences(
    other: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", **other)]
    report = report_of(*runs)
    assert report.about("no paired differences", reason)
    rows = report.rows("accuracy_differences")
    assert all(row["run"] == row["against_run"] for row in rows)


def test_one_ungraded_run_does_not_cost_the_other_its_accuracy(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", graded=False)]
    report = report_of(*runs)
    assert set(report.tables["accuracy"]["run"].to_pylist()) == {"a"}
    assert set(report.tables["js_shares"]["run"].to_pylist()) == {"a", "b"}


def test_checkpoints_that_measured_the_same_responses_are_ordered_by_their_steps(
    tmp_path: Path,
) -> None:
    runs = [
        make_run(
            tmp_path / f"at{step}", identity={"rl": str(step)}, rl=f"models/global_step_{step}"
        )
        for step in (100, 25)
    ]
    report = report_of(*runs)
    rows = report.rows("js_by_step")
    assert {(row["step"], row["label"]) for row in rows} == {(100, "at100"), (25, "at25")}
    assert {row["jaccard"] for row in report.rows("high_overlap")} == {1.0}


def test_other_responses_are_no_checkpoints(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / f"s{n}", identity={"rl": str(n)}, number=n) for n in range(2)]
    report = report_of(*runs)
    assert "js_by_step" not in report.tables
    assert "Needs two runs or more that measured the same responses" in report.page


# Strangers' text


def test_nothing_of_a_gated_set_is_in_page_or_tables(tmp_path: Path) -> None:
    texts = [f"secretpiece{place}" for place in range(6)]
    run = make_run(tmp_path / "run", gated=True, texts=texts)
    report = report_of(run)
    for text in (report.page, *(to_csv(table).decode() for table in report.tables.values())):
        assert "secretpiece" not in text and QUESTION not in text and "The answer text" not in text
    assert not {"frequent_tokens", "token_js"} & report.tables.keys()
    assert report.about("run: a gated set", "--show-text")
    shown = report_of(run, show_text=True)
    assert "secretpiece0" in shown.tables["frequent_tokens"]["text"].to_pylist()


def test_a_run_that_does_not_say_whether_it_is_gated_counts_as_gated(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    set_manifest(run, task=None)
    report = report_of(run)
    assert report.about("a gated set") and "frequent_tokens" not in report.tables


def test_every_text_from_outside_is_escaped_in_the_page(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "<b>run\n",
        problems=[HOSTILE, "=1+1"],
        texts=[HOSTILE, "=cmd|' /C calc'!A0", "@x", "+1", "-1", "\x1b[31m"],
        rl=HOSTILE,
        config={"criterion": HOSTILE, "threshold": HOSTILE, "match": HOSTILE},
    )
    set_manifest(run, created="\ud800", expected=HOSTILE)
    report = report_of(run)
    page = report.page
    assert "<script" not in page and "<img src=x" not in page and "<b>run" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<style>") == page.count("</style>") == 1
    assert "\x1b" not in page
    assert {"'=cmd|' /C calc'!A0", "'@x", "'+1", "'-1"} <= set(
        cells(report, "frequent_tokens", "text")
    )
    assert "'=1+1" in cells(report, "sequences", "problem")


def cells(report: Report, table: str, column: str) -> list[str]:
    parse = csv.ParseOptions(newlines_in_values=True)
    found: list[str] = csv.read_csv(io.BytesIO(to_csv(report.tables[table])), parse_options=parse)[
        column
    ].to_pylist()
    return found


def test_a_hostile_manifest_costs_only_what_it_should_have_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    set_manifest(run, identity=[], config="x", models=7, task=None, expected=None, created={"a": 1})
    report = report_of(run)
    assert {"accuracy", "js_histogram"} <= report.tables.keys()


def test_a_folder_whose_name_is_no_text_is_said_and_the_page_is_still_text(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run").rename(tmp_path / os.fsdecode(b"r\xffun"))
    report = report_of(run)
    assert report.about("part-000000.parquet is left out")
    assert r"r\udcffun" in report.page and report.page.encode()


def test_a_manifest_that_is_no_json_costs_only_what_it_should_have_said(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "run.json").write_text("{")
    report = report_of(run)
    assert {"accuracy", "js_histogram"} <= report.tables.keys()
    assert report.about("run.json cannot be read")
