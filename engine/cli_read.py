"""Commands that read run directories: `xsample grade`, `report`, `inspect` and `verify`; and how a
run ends.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.core import GRADERS, GraderName
from engine.errors import (
    GivenUpError,
    IncompleteRunError,
    RunDirectoryError,
    UsageError,
    XsampleError,
)
from engine.shell import debug_option, say, show
from engine.system.signals import Stopped, sigterm_like_ctrl_c
from engine.system.terminal import one_line

if TYPE_CHECKING:
    from engine.store.run_store import RunStore

_MAX_LISTED = 20

_run_argument = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
_show_text_option = click.option(
    "--show-text", is_flag=True, help="also of a gated set, whose text must not be published"
)


def finish(
    store: RunStore, grader: GraderName | None, show_measured: bool = False, report: bool = False
) -> None:
    """Write and show the summary, and the report if asked for; without a grader there are no
    grades.

    Raises IncompleteRunError, at the end, where trajectories are missing.
    """
    from engine.core import TRAJECTORY_KEY
    from evaluators.scores.divergence import measured
    from evaluators.scores.summary import (
        COUNTED,
        render,
        render_measured,
        summarise,
        summarise_ungraded,
    )

    responses = store.responses([*TRAJECTORY_KEY, *COUNTED])
    summary = (
        summarise(responses, store.grades(), grader) if grader else summarise_ungraded(responses)
    )
    summary["measured"] = measured(store.tokens())
    summary["total"]["missing"] = missing = max(
        0, store.num_expected - summary["total"]["responses"]
    )
    store.write_summary(summary)
    if grader:
        show(render(summary))
    if show_measured:
        show(render_measured(summary["measured"]))
    click.echo(f"run directory: {store.path}")
    if report:
        _report_at_the_end(store.path)
    if missing:
        failures = store.failures()
        given_up = (
            f", {len(failures)} of them given up after {failures[0].attempts} failures"
            if failures
            else ""
        )
        raise (GivenUpError if len(failures) == missing else IncompleteRunError)(
            f"{missing} of {store.num_expected} trajectories are missing{given_up}, and these"
            " numbers are of the rest alone (what ends early is there first): the same command"
            f" with --out {store.path} makes them"
        )


def _report_at_the_end(run: Path) -> None:
    """A run that is made and graded does not fail for want of its pictures, whatever keeps them
    from being made.
    """
    again = f"`{shlex.join(['xsample', 'report', str(run)])}` makes it"
    try:
        _report([run], run / "report")
    except KeyboardInterrupt as by:
        raise Stopped(
            f"stopped; the run is made and graded, only its report is not: {again}", by
        ) from by
    except XsampleError as error:
        say(f"note: there is no report: {error}; {again}")
    except Exception as error:
        say(
            f"note: there is no report: unexpected {type(error).__name__}: {error}. This is a bug;"
            f" {again}"
        )


def _report(runs: Sequence[Path], out: Path, show_text: bool = False) -> None:
    from engine.system.display import open_display
    from evaluators.report.build import build_report

    with sigterm_like_ctrl_c(), open_display() as display:
        made = build_report(runs, out, display.stage, show_text)
    for note in made.notes:
        say(f"note: {note}")
    click.echo(f"report: {made.index}")


@click.command("grade")
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
    from engine.core import TRAJECTORY_KEY
    from engine.store.run_store import RunStore
    from evaluators.grading.grader import grade_responses

    store = RunStore.read(run)
    problems, grader = store.problems(), grader or store.grader
    if not problems:
        raise RunDirectoryError(
            f"run directory {run} holds no gold answers: score its responses again with --task"
        )
    grades = grade_responses(
        store.response_parts([*TRAJECTORY_KEY, "text"]), problems, grader, workers, deadline
    )
    if not grades:
        raise RunDirectoryError(f"run directory {run} holds no responses yet: nothing to grade")
    store.write_grades(grades)
    finish(store, grader)
    if (run / "report" / "index.html").exists():
        say(
            f"note: {run / 'report'} is of the grades before these: `xsample report {run}` makes it"
            " anew"
        )


@click.command("report")
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
    _report(runs, out or runs[0] / "report", show_text)


@click.command("inspect")
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
    from engine.system.files import write_whole
    from evaluators.inspector.page import inspect_html
    from evaluators.inspector.reading import read_sample
    from evaluators.inspector.terminal import inspect_terminal

    read = read_sample(run, problem, sample)
    if html is None:
        show(inspect_terminal(read, show_text))
        return
    page = inspect_html(read, show_text).encode("utf-8")
    write_whole(html, lambda file: file.write(page))
    click.echo(f"page: {html}")


@click.command("verify")
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
    from engine.store.run_store import RunStore
    from engine.store.verify import verify_run

    found = verify_run(RunStore.read(run, as_is=True))
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
