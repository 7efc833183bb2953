"""Commands that read run directories: `xsample grade`, `report`, `inspect` and `verify`.

They start no engine and need no GPU. The docstring of a command is its help.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from engine.core import GRADERS, GraderName
from engine.errors import UsageError
from engine.system.terminal import one_line
from xsample.cli.finish import finish, write_report
from xsample.cli.panels import PanelCommand
from xsample.cli.shell import debug_option, say, show

_MAX_LISTED = 20

_run_argument = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
_show_text_option = click.option(
    "--show-text",
    is_flag=True,
    help="Also show the text of a gated set, which must not be published.",
)


@click.command("grade", cls=PanelCommand)
@_run_argument
@click.option(
    "--grader",
    type=click.Choice(GRADERS),
    help="How answers are compared with gold answers. Default: as in the run.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Number of grading processes.",
)
@click.option(
    "--deadline",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds that one answer may take.",
)
@debug_option
def grade_command(run: Path, grader: GraderName | None, workers: int, deadline: float) -> None:
    """Grade the responses of RUN, or grade them again, and summarise them.

    RUN itself keeps the gold answers and the order of options: neither the file of the task nor a
    network is needed, and the same grader gives the same grades.
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
    help="Folder of the report. Default, for one run: RUN/report.",
)
@_show_text_option
@debug_option
def report_command(runs: Sequence[Path], out: Path | None, show_text: bool) -> None:
    """Write tables (CSV), figures (PNG, SVG) and one HTML page of a run, or of several runs.

    What a run lacks is named, and the rest is reported. Several runs are shown side by side in the
    order in which they are named, checkpoints by the step in the name of their model.
    """
    if out is None and len(runs) > 1:
        raise UsageError(
            f"{len(runs)} runs are given and no --out: say which folder the report goes to"
        )
    write_report(runs, out or runs[0] / "report", show_text)


@click.command("inspect", cls=PanelCommand)
@_run_argument
@click.option("--problem", required=True, metavar="ID", help="Id of the problem, as in the tables.")
@click.option(
    "--sample",
    default=0,
    show_default=True,
    metavar="N",
    type=click.IntRange(0),
    help="Number of the sample, from 0.",
)
@click.option(
    "--html",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write an HTML page to this file instead of printing to the terminal.",
)
@_show_text_option
@debug_option
def inspect_command(
    run: Path, problem: str, sample: int, html: Path | None, show_text: bool
) -> None:
    """Show the responses to one problem of RUN, token by token.

    Shows where the policies part, and what each of them would have sampled: all directions and
    budgets of the sample, aligned at the positions where they part.
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
    help=f"List all that is wrong, not only {_MAX_LISTED} of each kind.",
)
@debug_option
@click.pass_context
def verify_command(ctx: click.Context, run: Path, list_all: bool) -> None:
    """Check that RUN has each expected trajectory once, whole and readable; exit code 1 if not."""
    from engine.store.run_reader import read_run
    from engine.store.verify import verify_run

    verification = verify_run(read_run(run, keep_foreign=True))
    for kind in (
        "unreadable",
        "foreign",
        "missing",
        "failed",
        "double",
        "unexpected",
        "miscounted",
    ):
        _list_faults(kind, [str(item) for item in getattr(verification, kind)], list_all)
    if verification.unreadable or verification.foreign:
        say(
            "put these files back; or remove parts, both files of a number: the same run makes them"
            " again"
        )
    if not verification.complete:
        ctx.exit(1)
    click.echo(
        f"complete: {verification.num_expected:,} trajectories, {verification.num_tokens:,} tokens"
    )


def _list_faults(kind: str, items: list[str], list_all: bool) -> None:
    if items:
        click.echo(f"{kind}: {len(items):,}")
        listed = items if list_all else items[:_MAX_LISTED]
        click.echo("\n".join(f"  {one_line(item)}" for item in listed))
        if len(listed) < len(items):
            click.echo(f"  ... and {len(items) - len(listed):,} more; --all lists them")
