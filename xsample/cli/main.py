"""The `xsample` command, its entry point, and the commands `tasks` and `doctor`.

A command reads its options, calls the module that does the work, and prints the result. Heavy
modules are imported inside the command that needs them, so that `--help` is quick. What all
commands share is in `shell.py`. The docstring of a command is its help.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

import click

from xsample.cli.panels import HELP_CONFIG, PanelCommand, command_panels
from xsample.cli.read import grade_command, inspect_command, report_command, verify_command
from xsample.cli.run import run_command, score_command
from xsample.cli.shell import Commands, debug_option, show


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "rich_help_config": HELP_CONFIG},
    panels=command_panels(
        {
            "Make a run": ["run", "score", "grade"],
            "Look at runs": ["report", "inspect", "verify"],
            "This machine": ["doctor", "tasks", "completion"],
        }
    ),
)
@click.version_option(package_name="xsample")
@debug_option
def commands() -> None:
    """Which tokens make an RL-tuned model better than its base?

    Runs both models in lock-step and swaps their tokens.
    """


@click.command("tasks", cls=PanelCommand)
@debug_option
def tasks_command() -> None:
    """List the task sets that `run --task` knows by name.

    It also takes a CSV, JSONL or Parquet file.
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


@click.command("doctor", cls=PanelCommand)
@click.option(
    "--quick", is_flag=True, help="Only what imports nothing and no run changes: for health checks."
)
@debug_option
@click.pass_context
def doctor_command(ctx: click.Context, quick: bool) -> None:
    """Check whether this machine is able to run; exit code 1 if not."""
    from xsample.doctor.diagnose import diagnose, render

    findings = diagnose(quick)
    show(render(findings))
    if any(finding.ok is False for finding in findings):
        ctx.exit(1)


@click.command("completion", cls=PanelCommand)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@debug_option
@click.pass_context
def completion_command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell. In bash: eval "$(xsample completion bash)"."""
    from click.shell_completion import get_completion_class

    completion = get_completion_class(shell)
    assert completion, "click completes in each of these shells"
    root = ctx.find_root()
    click.echo(completion(root.command, {}, "xsample", "_XSAMPLE_COMPLETE").source())


for command in (
    run_command, score_command, grade_command, report_command, inspect_command, verify_command,
    tasks_command, doctor_command, completion_command,
):  # fmt: skip
    commands.add_command(command)


def main() -> None:
    """Entry point of the `xsample` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A character that the terminal cannot show becomes a question mark, not an error.
            stream.reconfigure(errors="replace")
    commands(prog_name="xsample")


if __name__ == "__main__":
    main()
