"""The code blocks of a page, run as the page's reader would run them: in order, in one folder.

    bash    run: `xsample ...` in this process, other lines by the shell
    python  run: all blocks of a page in one namespace
    yaml    a run.yaml, loaded
    shell   not run, since it needs hub models, GPUs, Slurm, Docker or pip; but its `xsample` lines
            are parsed with the real options, and the targets of `make` must exist
    text    output, and anything else

Runs take the pair of engines that is kept, so that a page costs seconds and not a start each. They
write a report only where the page looks at it.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

from engine.lockstep.engine_pair import PairConfig
from engine.run.settings import load
from tests.support.engines import ENGINES, KeptPair, kept_pair, on_kept_engines
from tests.support.paths import ROOT
from xsample.cli.main import commands

# On these pages `xsample run` makes a report at its end; on others only `xsample report` makes one.
WITH_REPORTS = ("cookbook.md", "get-started.md", "report-and-inspector.md")
ROOMY = {
    "max_model_len": ENGINES["max_model_len"],
    "max_num_seqs": ENGINES["max_num_seqs"],
    "max_num_batched_tokens": 2048,
}


def pages() -> list[Path]:
    """README and every page of the site."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def run_page(page: Path) -> int:
    """Run the code blocks of a page in the working folder. Returns how many there are."""
    evaluators = {
        "bash": _run_bash, "python": _run_python, "yaml": _load_yaml, "shell": _parse_shell,
    }  # fmt: skip
    sybil = Sybil(
        [CodeBlockParser(language, evaluate) for language, evaluate in evaluators.items()]
    )
    examples = list(sybil.parse(page).examples())
    with on_pair_of_most_tests():
        for example in examples:
            example.evaluate()
    return len(examples)


def on_pair_of_most_tests() -> AbstractContextManager[None]:
    """Runs in this block are carried out by the pair that most tests share, whatever they ask."""
    return on_kept_engines(_roomy_pair)


def _roomy_pair(config: PairConfig) -> KeptPair:
    """The pair that most tests share; it has room for the runs of all pages."""
    workers = {
        policy: replace(
            worker,
            engine_args=worker.engine_args | ROOMY,
            step_timeout=ENGINES["step_timeout"],
        )
        for policy, worker in config.workers.items()
    }
    kv_cache_bytes = int(ENGINES["kv_cache_gib"] * 2**30)
    return kept_pair(replace(config, workers=workers, kv_cache_bytes=kv_cache_bytes))


def _run_bash(example: Example) -> None:
    for line in _lines(example.parsed):
        words = shlex.split(line, comments=True)
        if words[:2] == ["xsample", "run"] and Path(example.path).name not in WITH_REPORTS:
            words.append("--no-report")
        if words[:1] == ["xsample"]:
            result = CliRunner().invoke(commands, words[1:], prog_name="xsample")
            assert result.exit_code == 0, f"{example.path}: {line}\n{result.output}"
        elif words:
            subprocess.run(["bash", "-c", line], check=True, capture_output=True)


def _run_python(example: Example) -> None:
    code = compile(example.parsed, f"{example.path}:{example.line}", "exec")
    exec(code, example.namespace)


def _load_yaml(example: Example) -> None:
    Path("page.yaml").write_text(example.parsed)
    load(Path("page.yaml"), {})


def _parse_shell(example: Example) -> None:
    for line in _lines(example.parsed):
        words = shlex.split(line, comments=True)
        if words[:1] == ["xsample"]:
            _parse_options(words[1:])
        if words[:1] == ["make"]:
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert all(f"\n{target}:" in makefile for target in words[1:] if "=" not in target)


def _parse_options(arguments: list[str]) -> None:
    """Refuse what click would refuse, without running the command."""
    if not arguments or arguments[0].startswith("-"):
        return
    command: Any = commands.get_command(click.Context(commands), arguments[0])
    assert command, f"xsample {arguments[0]}"
    with _without_prompts():
        command.make_context(arguments[0], arguments[1:], resilient_parsing=False)


@contextmanager
def _without_prompts() -> Iterator[None]:
    try:
        yield
    except click.exceptions.Exit:  # of --help and --version
        return


def _lines(block: str) -> list[str]:
    """The commands of a block, with continuation lines joined."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]
