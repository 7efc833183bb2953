"""The `xsample` command: reads what the user gave, calls the module that does it, prints what came
out.

Anything heavy is imported inside the command that needs it, so `--help` is quick. What all commands
share is in `shell.py`.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

import click

from xsample.cli.read import grade_command, inspect_command, report_command, verify_command
from xsample.cli.run import run_command, score_command
from xsample.cli.shell import Commands, debug_option, show


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xsample")
@debug_option
def commands() -> None:
    """Which tokens make an RL-tuned model better than its base? Runs both in lock-step and swaps
    their tokens.
    """


@click.command("tasks")
@debug_option
def tasks_command() -> None:
    """The task sets that `run --task` knows by name; it takes a CSV, JSONL or Parquet file as
    well.
    """
    from rich.table import Table

    from evaluators.tasks.registry import TASKS

    table = Table("task", "prompt", "grader", box=None, pad_edge=False)
    for column in ("problems", "samples", "most tokens"):
        table.add_column(column, justify="right")
    table.add_column("source")
    table.add_column("what it is")
    for name, task in sorted(TASKS.items()):
        numbers = (f"{number:,}" for number in (task.num_problems, task.samples, task.max_tokens))
        table.add_row(name, task.prompt, task.grader, *numbers, task.source, task.description)
    show(table)


@click.command("doctor")
@click.option(
    "--quick", is_flag=True, help="only what needs no import and no run changes: for health checks"
)
@debug_option
@click.pass_context
def doctor_command(ctx: click.Context, quick: bool) -> None:
    """Is this machine able to run? Exit code 1 if not."""
    from xsample.doctor.diagnose import diagnose, render

    findings = diagnose(quick)
    show(render(findings))
    if any(finding.ok is False for finding in findings):
        ctx.exit(1)


for command in (
    run_command, score_command, grade_command, report_command, inspect_command, verify_command,
    tasks_command, doctor_command,
):  # fmt: skip
    commands.add_command(command)


def main() -> None:
    """Entry point of the `xsample` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, TextIOWrapper
        ):  # what a terminal cannot show is a question mark, not an error
            stream.reconfigure(errors="replace")
    commands(prog_name="xsample")


if __name__ == "__main__":
    main()
