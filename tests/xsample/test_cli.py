"""The command: its options, its exit codes, what it prints where, and what it imports."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import psutil
import pytest
from click.testing import CliRunner, Result

import evaluators.report.build
import xsample.making
import xsample.planning
from engine.config.inheritance import INHERITED_BY_SCORE, REFUSED_BY_SCORE
from engine.config.run_config import PANELS, RunConfig
from engine.core import Problem, Trajectory
from engine.errors import EngineError, IncompleteRunError, StoreError
from engine.run.plan import Plan
from engine.run.run_json import manifest_of
from engine.store.run_store import RunStore
from engine.system.signals import Terminated
from tests.support.commits import EXPECTED, KEYS, commit
from tests.support.paths import ROOT
from tests.support.waiting import comes_true
from xsample.cli.main import commands

HEAVY = (
    "torch",
    "vllm",
    "ray",
    "pyarrow",
    "matplotlib",
    "duckdb",
    "transformers",
    "numpy",
    "rich",
    "pydantic",
)
SMALL = ["run", "--limit", "1", "--samples", "1", "--device", "cpu", "--no-report"]


def invoke(*args: str) -> Result:
    return CliRunner().invoke(commands, list(args))


def run_python(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def executing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """The engines are replaced by what they may raise; everything before them is real."""

    def execute(*_: object) -> None:
        raise error

    monkeypatch.setattr(xsample.making, "execute", execute)


def test_help_lists_the_commands_that_exist() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    listed = re.findall(r"^│ ([a-z]+) ", result.output, re.MULTILINE)
    assert sorted(listed) == sorted(commands.commands)
    titles = re.findall(r"─ ([\w ]+) ─", result.output)
    assert titles == ["Options", "Make a run", "Look at runs", "This machine"]


def test_the_options_of_run_stand_in_panels_in_the_order_of_the_settings() -> None:
    output = invoke("run", "--help").output
    titles = re.findall(r"─ ([\w ]+) ─", output)
    assert titles == [*PANELS, "Options"]
    listed = re.findall(r"^│ --([a-z-]+)", output, re.MULTILINE)
    names = [name.replace("_", "-") for names in PANELS.values() for name in names]
    assert [name for name in listed if name in names] == names


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_options_and_their_choices(shell: str) -> None:
    result = invoke("completion", shell)
    assert (result.exit_code, "_XSAMPLE_COMPLETE" in result.output) == (0, True)
    words = {"COMP_WORDS": "xsample run --direc", "COMP_CWORD": "2"}
    completed = subprocess.run(
        [sys.executable, "-m", "xsample"],
        env={**os.environ, **words, "_XSAMPLE_COMPLETE": "bash_complete", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed.stdout.split() == ["plain,--direction"]


def test_the_command_imports_nothing_heavy() -> None:
    result = run_python(
        "import sys, xsample.cli.main; print(*(n for n in sys.argv[1:] if n in sys.modules))",
        *HEAVY,
    )
    assert (result.stdout.strip(), result.stderr) == ("", "")


@pytest.mark.parametrize(
    "command", [["--help"], ["run", "--help"], ["score", "--help"], ["report", "--help"]]
)
def test_help_imports_no_engine(command: list[str]) -> None:
    heavy = [name for name in HEAVY if name not in ("pydantic", "rich")]  # they make the help
    code = (
        "import sys, contextlib, io, xsample.cli.main as cli\nwith"
        f" contextlib.redirect_stdout(io.StringIO()): cli.commands({command},"
        f" standalone_mode=False)\nprint(*(name for name in {heavy} if name in sys.modules))"
    )
    assert run_python(code).stdout.strip() == ""


@pytest.mark.parametrize("name", RunConfig.model_fields)
def test_every_field_is_an_option_with_its_help(name: str) -> None:
    text = " ".join(invoke("run", "--help").output.split())
    assert re.search(rf"--{name.replace('_', '-')}[ /]", text)
    assert (RunConfig.model_fields[name].description or "?").split()[0] in text


def test_choices_are_those_of_the_field() -> None:
    result = invoke("run", "--direction", "sideways")
    assert result.exit_code == 2
    assert all(
        choice in result.output
        for choice in get_args(RunConfig.model_fields["direction"].annotation)
    )


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--thresold", "1"], "--threshold"),
        (["--budget", "many"], "budget"),
        (["--limit", "0"], "limit is 0"),
        (["--samples", "two"], "--samples"),
        (["--base", "somewhere"], "base is given without rl"),
        (["--task", "arithmetik"], "did you mean 'arithmetic'"),
        (["--config", "/nowhere/run.yaml"], "/nowhere/run.yaml does not exist"),
        (["extra"], "extra"),
    ],
)
def test_what_cannot_be_run_ends_with_two_and_says_why(args: list[str], expected: str) -> None:
    result = invoke("run", *args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert expected in result.stderr and "Traceback" not in result.stderr


def test_an_error_of_ours_is_one_line() -> None:
    assert invoke("run", "--limit", "0").stderr.count("\n") == 1


def test_an_unknown_key_of_the_file_is_refused_with_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("thresold: 0.2\n")
    result = invoke("run", "--config", str(tmp_path / "run.yaml"))
    assert result.exit_code == 2
    assert "unknown key 'thresold'; did you mean 'threshold'?" in result.stderr


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Collects the configurations that reach `prepare`, which is stopped there."""
    seen: list[RunConfig] = []

    def prepare(config: RunConfig, task: object) -> Plan:
        seen.append(config)
        raise EngineError("far enough")

    monkeypatch.setattr(xsample.planning, "prepare", prepare)
    return seen


def test_only_what_was_given_overrides_the_file(tmp_path: Path, resolved: list[RunConfig]) -> None:
    (tmp_path / "run.yaml").write_text("budget: [0, 4]\ntop_p: 0.9\nshare_gpu: true\nseed: 3\n")
    invoke("run", "--config", str(tmp_path / "run.yaml"), "--seed", "0", "--no-share-gpu")
    assert resolved == [RunConfig(budget=(0, 4), top_p=0.9, share_gpu=False, seed=0)]


def test_every_kind_of_option_reaches_the_configuration(resolved: list[RunConfig]) -> None:
    options = [
        "--budget",
        "0,8,unlimited",
        "--threshold",
        "0.5",
        "--limit",
        "2",
        "--direction",
        "reverse",
    ]
    invoke("run", *options, "--out", "some folder", "--enforce-eager", "--pairs", "2")
    assert resolved == [
        RunConfig(
            budget=(0, 8, None),
            threshold=0.5,
            limit=2,
            direction="reverse",
            out=Path("some folder"),
            enforce_eager=True,
            pairs=2,
        )
    ]


def test_no_option_means_the_defaults(resolved: list[RunConfig]) -> None:
    invoke("run")
    assert resolved == [RunConfig()]


def test_a_dry_run_shows_the_plan_and_the_first_prompt_and_starts_nothing(tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = invoke(*SMALL, "--direction", "reverse", "--dry-run", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert re.search(r"trajectories +1 ", result.output)
    assert re.search(r"The first prompt, \d+ tokens:\n.*\d", result.output)
    assert not out.exists()


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (EngineError("no engine"), 1),
        (IncompleteRunError("2 are missing"), 3),
        (ZeroDivisionError("oh"), 1),
    ],
)
def test_the_exit_code_is_the_errors(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, exit_code: int
) -> None:
    executing(monkeypatch, error)
    result = invoke(*SMALL, "--out", str(tmp_path / "run"))
    assert result.exit_code == exit_code
    last = result.stderr.splitlines()[-1]
    assert last.startswith("xsample: ") and str(error) in last
    assert "Traceback" not in result.output


@pytest.mark.parametrize("way", [["--debug", *SMALL], [*SMALL, "--debug"]])
def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: list[str]
) -> None:
    executing(monkeypatch, IncompleteRunError("2 are missing"))
    result = invoke(*way, "--out", str(tmp_path / "run"))
    assert result.exit_code == 3
    assert "Traceback" in result.stderr


def test_the_environment_can_ask_for_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSAMPLE_DEBUG", "1")
    assert "Traceback" in invoke("run", "--limit", "0").stderr


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    executing(monkeypatch, KeyboardInterrupt())
    result = invoke(*SMALL)
    assert result.exit_code == 130
    assert re.search(
        rf"xsample {' '.join(SMALL)} --out runs/arithmetic-\S+$", result.stderr.strip()
    )


def test_the_way_to_go_on_is_quoted_and_names_out_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    executing(monkeypatch, KeyboardInterrupt())
    out = str(tmp_path / "my run")
    result = invoke(*SMALL, "--out", out)
    assert result.stderr.count("--out") == 1
    assert f"--out '{out}'" in result.stderr


def test_sigterm_cleans_up_a_real_run_and_ends_with_143(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xsample", *SMALL, "--out", str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("loading"):
                process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 143, "".join(said)
        assert "--out" in said[-1] and "Traceback" not in "".join(said)
        assert _nobody_left(process.pid)


def _nobody_left(session: int) -> bool:
    """Whether all processes of the session end."""
    return comes_true(
        lambda: not any(_session(process.pid) == session for process in psutil.process_iter())
    )


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


@pytest.fixture
def store(tmp_path: Path) -> Any:
    manifest = {"identity": {}, "expected": EXPECTED, "task": {"grader": "math"}}
    with RunStore.open(tmp_path / "run", manifest) as store:
        store.write_problems((Problem("a", "?", "1"), Problem("b", "?", "1/2")), gated=False)
        yield store


def test_verify_of_a_complete_run_ends_with_zero(store: RunStore) -> None:
    commit(store, KEYS)
    result = invoke("verify", str(store.path))
    assert (result.exit_code, result.output) == (0, "complete: 8 trajectories, 24 tokens\n")


def test_verify_lists_what_is_missing_and_ends_with_one(store: RunStore) -> None:
    commit(store, KEYS[:-1])
    result = invoke("verify", str(store.path))
    assert (result.exit_code, result.output) == (
        1,
        "missing: 1\n  b sample 1 forward budget unlimited\n",
    )


def test_verify_lists_some_of_many_and_all_when_asked(tmp_path: Path) -> None:
    with RunStore.open(
        tmp_path / "run", {"identity": {}, "expected": EXPECTED | {"samples": 50}}
    ) as store:
        short, full = (invoke("verify", str(store.path), *more).output for more in ([], ["--all"]))
    assert len(short.splitlines()) == 22 and "180 more" in short
    assert len(full.splitlines()) == 201


@pytest.mark.parametrize("command", ["verify", "grade"])
def test_a_folder_that_is_no_run_is_refused(command: str, tmp_path: Path) -> None:
    result = invoke(command, str(tmp_path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "run.json" in result.stderr


def test_grade_of_a_run_without_responses_is_refused(store: RunStore) -> None:
    result = invoke("grade", str(store.path))
    assert result.exit_code == 2
    assert "no responses yet" in result.stderr


def test_tasks_lists_the_task_sets_without_a_network() -> None:
    result = invoke("tasks")
    assert result.exit_code == 0
    assert re.search(
        r"^arithmetic +plain +math +200 +8 +192 +embedded", result.output, re.MULTILINE
    )
    assert re.search(
        r"^gpqa-diamond +gpqa +choice +198 +8 +8,000 +Idavidrein/gpqa", result.output, re.MULTILINE
    )


def test_a_regrade_says_how_answers_were_compared(store: RunStore) -> None:
    commit(store, KEYS)
    for grader in ("math", "exact"):
        assert invoke("grade", str(store.path), "--grader", grader).exit_code == 0
        assert store.summary()["grader"] == grader
        assert [arm["tokens"] for arm in store.summary()["measured"]] == [12, 12]


def test_a_regrade_of_a_run_that_is_not_complete_says_so_and_ends_with_three(
    store: RunStore,
) -> None:
    commit(store, KEYS[:5])
    result = invoke("grade", str(store.path))
    assert result.exit_code == 3
    assert "3 of 8 trajectories are missing" in result.stderr
    assert store.summary()["total"]["missing"] == 3


def test_a_prompt_reaches_the_terminal_whole_and_without_its_escape_sequences(
    tmp_path: Path,
) -> None:
    question = "1+1 \x1b[2Jis " + "what " * 20 + "\t?"
    (tmp_path / "q.jsonl").write_text(json.dumps({"question": question, "answer": 2}))
    result = invoke(
        "run",
        "--task",
        str(tmp_path / "q.jsonl"),
        "--prompt",
        "plain",
        "--max-tokens",
        "9",
        "--dry-run",
    )
    assert f"Q: {question}\n".replace("\x1b", "\\x1b") in result.stdout
    assert "\x1b" not in result.output


def test_a_file_of_ones_own_and_a_prompt_of_ones_own_are_shown_by_a_dry_run(tmp_path: Path) -> None:
    (tmp_path / "sums.csv").write_text(
        "ID,Question,Gold\n1,11+22=?,033\n2,11+22=?,33\n3,22+33=?,55\n"
    )
    (tmp_path / "ask.txt").write_text("Sum: {question}\n")
    options = [
        "--task",
        str(tmp_path / "sums.csv"),
        "--answer-column",
        "gold",
        "--max-tokens",
        "32",
    ]
    result = invoke(
        "run",
        *options,
        "--prompt-template",
        str(tmp_path / "ask.txt"),
        "--device",
        "cpu",
        "--dry-run",
    )
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith("tokens:\nQ: Sum: 11+22=?\nA:")
    assert re.search(r"^problems +2 from .*sums.csv", result.stdout, re.MULTILINE)
    assert "xsample: note: 3 rows hold 2 problems" in result.stderr


# score


@pytest.fixture
def given(tmp_path: Path) -> str:
    """A file with two responses to one prompt."""
    rows = [{"prompt": "Q: 11+22=?\nA:", "response": answer} for answer in (" 33", " 34")]
    (tmp_path / "given.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return str(tmp_path / "given.jsonl")


def test_score_offers_what_measures_and_nothing_of_what_makes_responses() -> None:
    offered = {
        word.rstrip(",").split("/")[0]
        for word in invoke("score", "--help").output.split()
        if word.startswith("--")
    }
    flags = {name: f"--{name.replace('_', '-')}" for name in RunConfig.model_fields}
    assert set(REFUSED_BY_SCORE) == {name for name, flag in flags.items() if flag not in offered}
    assert {
        "--base",
        "--task",
        "--top-p",
        "--record-top-k",
        "--dtype",
        "--pairs",
        "--out",
    } <= offered


def test_what_score_takes_over_from_a_run_it_offers_too() -> None:
    assert set(INHERITED_BY_SCORE) <= RunConfig.model_fields.keys() - set(REFUSED_BY_SCORE)


def test_a_dry_run_of_score_shows_what_would_be_measured_and_starts_nothing(
    given: str, tmp_path: Path
) -> None:
    result = invoke(
        "score", given, "--device", "cpu", "--out", str(tmp_path / "scored"), "--dry-run"
    )
    assert result.exit_code == 0, result.output
    assert re.search(r"^responses +2 from .*given.jsonl", result.stdout, re.MULTILINE)
    assert re.search(r"The first prompt, \d+ tokens:\nQ: 11\+22=\?\nA:", result.stdout)
    assert not (tmp_path / "scored").exists()


def test_a_dry_run_of_score_says_notes_and_how_many_gold_answers_are_known(tmp_path: Path) -> None:
    (tmp_path / "sums.csv").write_text("id,question,answer\n1,11+22=?,33\n2,22+33=?,55\n")
    row = {"problem": "sums/2", "response": "55", "token_ids": [5, 0]}
    (tmp_path / "given.jsonl").write_text(json.dumps(row))
    task = ["--task", str(tmp_path / "sums.csv"), "--prompt", "plain"]
    result = invoke("score", str(tmp_path / "given.jsonl"), *task, "--device", "cpu", "--dry-run")
    assert result.exit_code == 0, result.output
    assert re.search(r"^problems +1 with a gold answer", result.stdout, re.MULTILINE)
    assert result.stdout.rstrip().endswith("Q: 22+33=?\nA:")
    assert "xsample: note: 1 rows hold token ids and text: the ids are taken" in result.stderr


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["nowhere.jsonl"], "nowhere.jsonl does not exist: give a run directory"),
        (["."], "is a folder without run.json"),
        ([], "Missing argument 'GIVEN'"),
        (["GIVEN", "--budget", "8"], "--budget"),
        (["GIVEN", "--prompt", "boxed"], "prompt is 'boxed', but no task is given"),
        (["GIVEN", "--task", "arithmetik"], "did you mean 'arithmetic'"),
        (["GIVEN", "--task", "arithmetic"], "given.jsonl, line 1 names no problem"),
        (
            ["GIVEN", "--max-model-len", "12", "--device", "cpu"],
            "given.jsonl, line 1: prompt and response",
        ),
    ],
)
def test_what_cannot_be_scored_ends_with_two_and_says_why(
    args: list[str], expected: str, given: str
) -> None:
    result = invoke("score", *(given if arg == "GIVEN" else arg for arg in args))
    assert (result.exit_code, result.stdout) == (2, "")
    assert expected in result.stderr and "Traceback" not in result.stderr


def test_a_file_of_garbage_is_not_scored(tmp_path: Path) -> None:
    (tmp_path / "given.jsonl").write_bytes(b"\xff\x00 garbage\n")
    result = invoke("score", str(tmp_path / "given.jsonl"), "--device", "cpu")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "given.jsonl" in result.stderr


def test_a_file_of_settings_for_a_run_is_not_taken_for_one_of_score(
    given: str, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text("top_p: 0.9\nbudget: 8\n")
    result = invoke("score", given, "--config", str(tmp_path / "run.yaml"))
    assert result.exit_code == 2
    assert "run.yaml: budget is '(8,)', but says how responses are made" in result.stderr


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Collects the configurations that reach `prepare_score`, which is stopped there."""
    seen: list[RunConfig] = []

    def prepare_score(config: RunConfig, read: object) -> Plan:
        seen.append(config)
        raise EngineError("far enough")

    monkeypatch.setattr(xsample.planning, "prepare_score", prepare_score)
    return seen


def test_a_run_is_scored_under_its_own_settings_and_what_is_given_goes_before_them(
    tmp_path: Path, scored: list[RunConfig]
) -> None:
    settings = {
        "base": "B",
        "rl": "R",
        "top_p": 0.9,
        "record_top_k": 5,
        "budget": [8],
        "task": "aime24",
        "pairs": 4,
    }
    with RunStore.open(
        tmp_path / "run", {"identity": {}, "expected": EXPECTED, "config": settings}
    ):
        (tmp_path / "score.yaml").write_text("base: OTHER\nrecord_top_k: 7\n")
    invoke("score", str(tmp_path / "run"))
    invoke(
        "score", str(tmp_path / "run"), "--rl", "OTHER", "--config", str(tmp_path / "score.yaml")
    )
    assert scored == [
        RunConfig(base="B", rl="R", top_p=0.9, record_top_k=5),
        RunConfig(base="OTHER", rl="OTHER", top_p=0.9, record_top_k=7),
    ]


def test_a_score_that_is_stopped_says_which_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    executing(monkeypatch, KeyboardInterrupt())
    result = invoke("score", given, "--device", "cpu")
    assert result.exit_code == 130
    assert re.search(
        rf"xsample score {given} --device cpu --out runs/given-scored-\S+$", result.stderr.strip()
    )


@pytest.mark.parametrize("task", [[], ["--task", "sums.csv", "--prompt", "plain"]])
def test_what_was_scored_is_shown_and_kept_with_or_without_gold_answers(
    task: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The engines are replaced by a run directory that is complete already."""
    monkeypatch.chdir(tmp_path)
    Path("sums.csv").write_text("id,question,answer\n1,11+22=?,33\n")
    Path("given.jsonl").write_text(json.dumps({"problem": "sums/1", "prompt": "Q", "text": "3"}))
    key = Trajectory("sums/1", 0, "given", None)

    def execute(plan: Plan, grader: Any, display: object) -> RunStore:
        with RunStore.open(plan.out, manifest_of(plan)) as store:
            store.write_problems(plan.problems, gated=False)
            commit(store, [key])
            if grader:
                grader.submit(key, r"\boxed{33}")
                store.write_grades(grader.finish())
        return store

    monkeypatch.setattr(xsample.making, "execute", execute)
    result = invoke("score", "given.jsonl", *task, "--device", "cpu", "--out", "scored")
    assert result.exit_code == 0, result.output
    summary = RunStore.read(Path("scored")).summary()
    [measured] = summary["measured"]
    assert (measured["direction"], measured["tokens"], measured["js_mean"]) == ("given", 3, None)
    assert "high" in result.stdout and ("acc. %" in result.stdout) == bool(task)
    assert [arm["accuracy"] for arm in summary["arms"]] == ([1.0] if task else [])
    assert (summary["grader"], summary["total"]["missing"]) == ("math" if task else None, 0)
    regraded = invoke("grade", "scored")
    assert regraded.exit_code == (0 if task else 2)
    assert task or "holds no gold answers: score its responses again with --task" in regraded.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            StoreError("the disk is full"),
            0,
            "note: there is no report: the disk is full; `xsample report scored` makes it",
        ),
        (
            OSError("surprise"),
            0,
            "note: there is no report: unexpected OSError: surprise. This is a bug",
        ),
        (KeyboardInterrupt(), 130, "stopped; the run is made and graded, only its report is not"),
        (Terminated(), 143, "stopped; the run is made and graded, only its report is not"),
    ],
)
def test_a_run_whose_report_cannot_be_made_is_still_a_run(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def execute(plan: Plan, *_: object) -> RunStore:
        with RunStore.open(plan.out, manifest_of(plan)) as store:
            commit(store, [Trajectory("0", 0, "given", None)])
        return store

    def build_report(*_: object) -> None:
        raise error

    monkeypatch.chdir(tmp_path)
    Path("given.jsonl").write_text(json.dumps({"prompt": "Q", "text": "3"}))
    monkeypatch.setattr(xsample.making, "execute", execute)
    monkeypatch.setattr(evaluators.report.build, "build_report", build_report)
    result = invoke("score", "given.jsonl", "--device", "cpu", "--out", "scored")
    assert (result.exit_code, "run directory: scored" in result.stdout) == (
        code,
        True,
    ), result.output
    assert said in result.stderr


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    command = f"{sys.executable} -m xsample run --help | head -c 1"
    result = subprocess.run(
        command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True
    )
    assert result.stderr == ""
