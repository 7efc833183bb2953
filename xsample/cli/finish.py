"""How a command that makes or grades a run ends: with the tables of its summary, and a report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import XsampleError
from engine.system.signals import Stopped, sigterm_like_ctrl_c
from xsample.cli.shell import say, show

if TYPE_CHECKING:
    from engine.core import GraderName
    from engine.store.run_store import RunStore


def finish(
    store: RunStore,
    grader: GraderName | None,
    show_measured: bool = False,
    report: bool = False,
) -> None:
    """Write and show the summary of a run, and write its report if asked for.

    Args:
        store: The run directory.
        grader: How its answers were compared; None if there are no grades.
        show_measured: Also show the divergence between the policies.
        report: Also write figures and a page to RUN/report.

    Raises:
        IncompleteRunError: Trajectories are missing; raised after all is shown.
    """
    from evaluators.scores.run_summary import check_complete, summarise_run
    from evaluators.scores.summary_table import render, render_divergence

    summary = summarise_run(store, grader)
    if grader:
        show(render(summary))
    if show_measured:
        show(render_divergence(summary["measured"]))
    click.echo(f"run directory: {store.path}")
    if report:
        _try_report(store.path)
    check_complete(store, summary)


def write_report(runs: Sequence[Path], out: Path, show_text: bool = False) -> None:
    """Write the report of one or more runs into `out`, and print where it is."""
    from engine.system.screen import open_display
    from evaluators.report.build import build_report

    with sigterm_like_ctrl_c(), open_display() as display:
        report = build_report(runs, out, display.stage, show_text)
    for note in report.notes:
        say(f"note: {note}")
    click.echo(f"report: {report.index}")


def _try_report(run: Path) -> None:
    """Write the report of a run that is made and graded; a failure is only a note.

    Raises:
        Stopped: A signal came.
    """
    again = f"`{shlex.join(['xsample', 'report', str(run)])}` makes it"
    try:
        write_report([run], run / "report")
    except KeyboardInterrupt as signal:
        raise Stopped(
            f"stopped; the run is made and graded, only its report is not: {again}", signal
        ) from signal
    except XsampleError as error:
        say(f"note: there is no report: {error}; {again}")
    except Exception as error:
        say(
            f"note: there is no report: unexpected {type(error).__name__}: {error}. This is a bug;"
            f" {again}"
        )
