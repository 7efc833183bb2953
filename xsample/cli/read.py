"""Commands that read run directories: `xsample grade`, `report`, `inspect` and `verify`; and how a
run ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.core import GRADERS, GraderName
from engine.errors import (
    UsageError,
)
from engine.system.terminal import one_line
from xsample.cli.finish import finish, write_report
from xsample.cli.panels import PanelCommand
from xsample.cli.shell import debug_option, say, show

if TYPE_CHECKING:
    pass

_MAX_LISTED = 20

_run_argument = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
_show_text_option = click.option(
    "--show-text", is_flag=True, help="also of a gated set, whose text must not be published"
)


@click.command("grade", cls=PanelCommand)
@_run_argument
@click.option(
    "--grader", type=click.Choice(GRADERS), help="how answers are compared; default: as in the run"
)
@click.option(
    "--workers", type=click.IntRange(1), default=2, show_default=True, help="grading processes"
)
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="seconds",
)
@debug_option
def grade_command(run: Path, grader: GraderName | None, workers: int, deadline: float) -> None:
    """Grade, or re-grade, the responses of RUN and summarise them.

    Gold answers and the order of options are those that the run keeps: neither the task's file nor
    a network is needed, and the same grader gives the same grades.
    """
    from engine.store.run_store import RunStore
    from evaluators.grading.regrade import regrade

    store = RunStore.read(run)
    grader = regrade(store, grader, workers, deadline)
    finish(store, grader)
    if (run / "report" / "index.html").exists():
        say(
            f"note: {run / 'report'} is of the grades before these: `xsample report {run}` makes it"
            " anew"
        )


@click.command("report", cls=PanelCommand)
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    help="where it goes; default, of one run: RUN/report",
)
@_show_text_option
@debug_option
def report_command(runs: Sequence[Path], out: Path | None, show_text: bool) -> None:
    """Tables (CSV), figures (PNG, SVG) and one HTML page of a run, or of several side by side.

    What a run lacks is named, and the rest reported. Several runs are shown in the order given,
    checkpoints by the step in their model's name.
    """
    if out is None and len(runs) > 1:
        raise UsageError(
            f"{len(runs)} runs are given and no --out: say which folder the report goes to"
        )
    write_report(runs, out or runs[0] / "report", show_text)


@click.command("inspect", cls=PanelCommand)
@_run_argument
@click.option("--problem", required=True, metavar="ID", help="problem id, as in the tables")
@click.option(
    "--sample",
    default=0,
    show_default=True,
    metavar="N",
    type=click.IntRange(0),
    help="sample of the problem",
)
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="write a page, instead of to the terminal",
)
@_show_text_option
@debug_option
def inspect_command(
    run: Path, problem: str, sample: int, html: Path | None, show_text: bool
) -> None:
    """The responses to one problem of RUN, token by token: where the policies part, and what each
    would have said.

    All directions and budgets of the sample, aligned to where they part.
    """
    from evaluators.inspector.page import write_page
    from evaluators.inspector.reading import read_sample
    from evaluators.inspector.terminal import inspect_terminal

    responses = read_sample(run, problem, sample)
    if html is None:
        show(inspect_terminal(responses, show_text))
        return
    write_page(responses, html, show_text)
    click.echo(f"page: {html}")


@click.command("verify", cls=PanelCommand)
@_run_argument
@click.option(
    "--all",
    "list_all",
    is_flag=True,
    help=f"list everything that is wrong, not only {_MAX_LISTED} of a kind",
)
@debug_option
@click.pass_context
def verify_command(ctx: click.Context, run: Path, list_all: bool) -> None:
    """Is every expected trajectory of RUN there, once, whole and readable? Exit code 1 if not."""
    from engine.store.run_reader import read_run
    from engine.store.verify import verify_run

    found = verify_run(read_run(run, keep_foreign=True))
    for kind in (
        "unreadable",
        "foreign",
        "missing",
        "failed",
        "double",
        "unexpected",
        "miscounted",
    ):
        _list_wrong(kind, [str(item) for item in getattr(found, kind)], list_all)
    if found.unreadable or found.foreign:
        say(
            "put these files back; or remove parts, both files of a number: the same run makes them"
            " again"
        )
    if not found.complete:
        ctx.exit(1)
    click.echo(f"complete: {found.num_expected:,} trajectories, {found.num_tokens:,} tokens")


def _list_wrong(kind: str, items: list[str], list_all: bool) -> None:
    if items:
        click.echo(f"{kind}: {len(items):,}")
        shown = items if list_all else items[:_MAX_LISTED]
        click.echo("\n".join(f"  {one_line(item)}" for item in shown))
        if len(shown) < len(items):
            click.echo(f"  ... and {len(items) - len(shown):,} more; --all lists them")
