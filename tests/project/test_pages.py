"""README, documentation and examples: every code block runs, and the site builds strictly."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import xsample
from tests.support.pages import on_pair_of_most_tests, pages, run_page
from tests.support.paths import ROOT
from xsample.cli.main import commands

# Its blocks are training code for TRL and verl: tests/recipes/test_trl.py runs them.
WITH_A_TEST_OF_ITS_OWN = "divergence-weighting.md"
EXAMPLES = ("first_run.py", "random_control.py")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_code_block_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page.name == WITH_A_TEST_OF_ITS_OWN:
        pytest.skip("tests/recipes/test_trl.py runs its blocks")
    monkeypatch.chdir(tmp_path)
    run_page(page)


def test_the_pages_have_code_blocks() -> None:
    """A test that finds no block passes, so some are counted."""
    blocks = [
        language
        for page in pages()
        for language in re.findall(r"^```(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert blocks.count("python") >= 10 and blocks.count("bash") >= 10
    assert blocks.count("shell") >= 20
    assert set(blocks) <= {"bash", "python", "shell", "text", "yaml"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path)])
    with on_pair_of_most_tests():
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    output = capsys.readouterr().out
    report = Path(output.rpartition("report: ")[2].strip())
    assert report.is_file() and "accuracy" in output


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = ["-W", "--keep-going", "-n", "-q", "-b", "html", "docs", str(tmp_path / "site")]
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert built.returncode == 0, built.stderr
    options = (tmp_path / "site" / "reference" / "options.html").read_text(encoding="utf-8")
    assert "--tensor-parallel-size" in options


def test_every_command_is_in_the_readme_and_on_the_page_of_commands() -> None:
    for page in ("README.md", "docs/reference/commands.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert not [name for name in commands.commands if f"`xsample {name}" not in text], page


def test_the_version_stands_in_one_place_and_elsewhere_agrees() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == xsample.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {xsample.__version__}\n" in changelog
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project and project["dynamic"] == ["version"]


def test_the_workflow_and_the_hook_call_what_contributors_call() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(workflow)["jobs"]["ci"]["steps"]
    assert steps[-1]["run"] == "bash .ci/run"
    subprocess.run([sys.executable, "-m", "pre_commit", "validate-config"], cwd=ROOT, check=True)


def test_the_readme_is_read_to_its_end() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150 and len(text.split()) <= 1_300
    assert text.index("docs/assets/accuracy.png") < text.index("make demo")


def test_every_link_of_readme_and_kit_leads_somewhere() -> None:
    for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{name}: {target}"
