"""The `xsample` command: reads what the user gave, calls the module that does it, prints what came out.

The options of `run` are the fields of RunConfig. Anything heavy is imported inside the command that needs it, so
`--help` is quick. An error of the tree is one line and its exit code; Ctrl-C ends with 130, SIGTERM with 143.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import click

from engine.errors import IncompleteRunError, RunDirectoryError, StoreError, XsampleError
from engine.options import ConfigCommand, arguments, overrides
from engine.problem import GRADERS, GraderName
from engine.terminal import visible

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from engine.config import RunConfig
    from engine.problem import Task
    from engine.store import RunStore

_MOST_LISTED = 20
_PIPE_WIDTH = 120  # rich would assume 80 columns where there is no terminal, and wrap the table


class _Terminated(KeyboardInterrupt):
    """SIGTERM: cleaned up after like Ctrl-C, and told apart in the exit code."""


class _Stopped(XsampleError):
    """Ctrl-C or SIGTERM, after clean-up."""

    def __init__(self, message: str, by: KeyboardInterrupt) -> None:
        super().__init__(message)
        self.exit_code = 128 + (signal.SIGTERM if isinstance(by, _Terminated) else signal.SIGINT)


class _Commands(click.Group):
    """The one place where exceptions become messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except XsampleError as error:
            _fail(ctx, str(error), error.exit_code, error)
        except KeyboardInterrupt as error:
            stopped = _Stopped("stopped", error)
            _fail(ctx, str(stopped), stopped.exit_code, error)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click's own, and a reader that has left, which click ends quietly
        except Exception as error:
            what = f"unexpected {type(error).__name__}: {error}. This is a bug; --debug shows where"
            _fail(ctx, what, 1, error)


def _fail(ctx: click.Context, message: str, exit_code: int, error: BaseException) -> NoReturn:
    if ctx.meta.get("debug"):
        traceback.print_exception(error)
    click.echo(f"xsample: {visible(message)}", err=True)
    ctx.exit(exit_code)


def _remember_debug(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta["debug"] = True  # a child's meta is its parent's


_debug = click.option(
    "--debug",
    is_flag=True,
    envvar="XSAMPLE_DEBUG",
    expose_value=False,
    is_eager=True,
    callback=_remember_debug,
    help="Show tracebacks; XSAMPLE_DEBUG=1 does the same.",
)
_run_argument = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xsample")
@_debug
def commands() -> None:
    """Which tokens make an RL-tuned model better than its base? Runs both in lock-step and swaps their tokens."""


@commands.command("run", cls=ConfigCommand)
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML with these options as its keys")
@click.option("--dry-run", is_flag=True, help="check everything, show the plan and the first prompt, start nothing")
@_debug
@click.pass_context
def run_command(ctx: click.Context, /, config: Path | None, dry_run: bool, **_: object) -> None:
    """Make, grade and summarise the responses of a pair. Without models: the embedded pair, on the CPU.

    The same command with the same --out resumes.
    """
    from engine.config import load
    from evaluators.tasks.registry import load_task

    resolved = load(config, overrides(ctx))
    task = load_task(resolved)
    for note in task.notes:
        click.echo(f"xsample: note: {visible(note)}", err=True)
    if dry_run:
        _show_plan(resolved, task)
    else:
        _run(ctx, resolved, task)


def _show_plan(config: RunConfig, task: Task) -> None:
    from rich.table import Table
    from rich.text import Text

    from engine.run import prepare

    plan = prepare(config, task)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in plan.describe():
        table.add_row(Text(name), Text(visible(value)))
    _print(table)
    click.echo(f"\nThe first prompt, {len(plan.prompts[0])} tokens:\n{visible(plan.first_prompt)}")


def _run(ctx: click.Context, config: RunConfig, task: Task) -> None:
    from engine.display import open_display
    from engine.run import execute, prepare
    from evaluators.grading.grader import Grader

    plan = prepare(config, task)
    if plan.memory.warning:
        click.echo(f"xsample: warning: {plan.memory.warning}", err=True)
    try:
        grader = Grader(task.problems, task.grader)
        with _sigterm_like_ctrl_c(), grader, open_display() as display:
            display.note(f"run directory: {plan.out}")
            store = execute(plan, grader, display)
    except StoreError as error:
        raise StoreError(f"{error} (with --out {plan.out})") from error
    except KeyboardInterrupt as by:
        resume = shlex.join(["xsample", "run", *arguments(ctx), *([] if config.out else ["--out", str(plan.out)])])
        raise _Stopped(f"stopped; what was finished is kept, this goes on with it: {resume}", by) from by
    _summarise(store, task.grader)


def _summarise(store: RunStore, grader: GraderName) -> None:
    from engine.record import TRAJECTORY_KEY
    from evaluators.summary import COUNTED, render, summarise

    summary = summarise(store.responses([*TRAJECTORY_KEY, *COUNTED]), store.grades(), grader)
    summary["total"]["missing"] = missing = store.num_expected - summary["total"]["responses"]
    store.write_summary(summary)
    _print(render(summary))
    click.echo(f"run directory: {store.path}")
    if missing:
        raise IncompleteRunError(
            f"{missing} of {store.num_expected} trajectories are missing, and these numbers are of the rest alone "
            f"(what ends early is there first): the same `xsample run` with --out {store.path} makes them"
        )


@contextmanager
def _sigterm_like_ctrl_c() -> Iterator[None]:
    def terminate(number: int, frame: FrameType | None) -> NoReturn:
        raise _Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # so ends ray.init when it is the one that is hit
            raise _Terminated from end
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


@commands.command("grade")
@_run_argument
@click.option("--grader", type=click.Choice(GRADERS), help="how answers are compared; default: as in the run")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="grading processes")
@click.option("--deadline", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="seconds")
@_debug
def grade_command(run: Path, grader: GraderName | None, workers: int, deadline: float) -> None:
    """Grade, or re-grade, the responses of RUN and summarise them.

    Gold answers and the order of options are those that the run keeps: neither the task's file nor a network is
    needed, and the same grader gives the same grades.
    """
    from engine.record import TRAJECTORY_KEY
    from engine.store import RunStore
    from evaluators.grading.grader import grade_responses

    store = RunStore.read(run)
    grader = grader or store.grader
    grades = grade_responses(
        store.response_parts([*TRAJECTORY_KEY, "text"]), store.problems(), grader, workers, deadline
    )
    if not grades:
        raise RunDirectoryError(f"run directory {run} holds no responses yet: nothing to grade")
    store.write_grades(grades)
    _summarise(store, grader)


@commands.command("verify")
@_run_argument
@click.option(
    "--all", "list_all", is_flag=True, help=f"list everything that is wrong, not only {_MOST_LISTED} of a kind"
)
@_debug
@click.pass_context
def verify_command(ctx: click.Context, run: Path, list_all: bool) -> None:
    """Is every expected trajectory of RUN there, once, whole and readable? Exit code 1 if not."""
    from engine.store import RunStore
    from engine.verify import verify_run

    found = verify_run(RunStore.read(run))
    for kind in ("unreadable", "missing", "double", "unexpected", "miscounted"):
        _list_wrong(kind, [str(item) for item in getattr(found, kind)], list_all)
    if not found.complete:
        ctx.exit(1)
    click.echo(f"complete: {found.num_expected:,} trajectories, {found.num_tokens:,} tokens")


def _list_wrong(kind: str, items: list[str], list_all: bool) -> None:
    if items:
        click.echo(f"{kind}: {len(items):,}")
        shown = items if list_all else items[:_MOST_LISTED]
        click.echo("\n".join(f"  {item}" for item in shown))
        if len(shown) < len(items):
            click.echo(f"  ... and {len(items) - len(shown):,} more; --all lists them")


@commands.command("tasks")
@_debug
def tasks_command() -> None:
    """The task sets that `run --task` knows by name; it takes a CSV, JSONL or Parquet file as well."""
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
    _print(table)


@commands.command("doctor")
@_debug
@click.pass_context
def doctor_command(ctx: click.Context) -> None:
    """Is this machine able to run? Exit code 1 if not."""
    from engine.doctor import diagnose, render

    findings = diagnose()
    _print(render(findings))
    if any(finding.ok is False for finding in findings):
        ctx.exit(1)


def _print(renderable: RenderableType) -> None:
    _console().print(renderable)


def _console() -> Console:
    from rich.console import Console

    on_terminal = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if on_terminal else _PIPE_WIDTH, highlight=False)


def main() -> None:
    """Entry point of the `xsample` command."""
    commands(prog_name="xsample")


if __name__ == "__main__":
    main()
