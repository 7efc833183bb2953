"""Commands that start engines: `xsample run` and `xsample score`.

Their options are the fields of RunConfig. The docstring of a command is its help.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.config.inheritance import INHERITED_BY_SCORE, REFUSED_BY_SCORE
from engine.errors import StoreError
from engine.shard import WHOLE
from engine.system.signals import Stopped, sigterm_like_ctrl_c
from engine.system.terminal import visible
from xsample.cli.finish import finish
from xsample.cli.options import ConfigCommand, typed_arguments, typed_settings
from xsample.cli.shell import debug_option, say, show

if TYPE_CHECKING:
    from engine.run.plan import Plan
    from engine.store.run_store import RunStore

_config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Read settings from a YAML file, whose keys are these options; options override it.",
)
_dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything, show the plan and the first prompt, and start nothing.",
)
_report_option = click.option(
    "--report/--no-report",
    default=True,
    help="Write figures and a page to RUN/report at the end. [default: report]",
)


@click.command("run", cls=ConfigCommand)
@_config_option
@_dry_run_option
@_report_option
@debug_option
@click.pass_context
def run_command(
    ctx: click.Context, /, config: Path | None, dry_run: bool, report: bool, **_: object
) -> None:
    """Make, grade and summarise the responses of a pair of models.

    Without --base and --rl the embedded tiny pair runs, for which a CPU is enough. The same command
    with the same --out resumes a run.
    """
    from engine.run.settings import load
    from xsample.planning import plan_run

    plan = plan_run(load(config, typed_settings(ctx)))
    _announce(plan)
    if dry_run:
        _show_plan(plan)
    else:
        _carry_out(ctx, plan, report)


@click.command("score", cls=ConfigCommand, leave_out=REFUSED_BY_SCORE)
@click.argument("responses", metavar="GIVEN", type=click.Path(path_type=Path))
@_config_option
@_dry_run_option
@_report_option
@debug_option
@click.pass_context
def score_command(
    ctx: click.Context,
    /,
    responses: Path,
    config: Path | None,
    dry_run: bool,
    report: bool,
    **_: object,
) -> None:
    """Measure responses that exist already, token by token, under a pair, into the same tables.

    GIVEN is a run directory, or a JSONL or Parquet file. A run is measured under its own pair and
    settings, unless you give others. A file has one row per response, with token_ids or response
    (text), and with prompt_token_ids, prompt (text as the model saw it) or problem (an id of
    --task). The text of a response that ended by itself needs finish_reason stop, so that its EOS
    is added. With --task the responses are graded too. The same command with the same --out resumes
    a run.
    """
    from engine.run.settings import load_for_score, settings_of
    from evaluators.external.reading import is_run
    from xsample.planning import plan_score

    inherited = settings_of(responses, INHERITED_BY_SCORE) if is_run(responses) else None
    plan = plan_score(responses, load_for_score(config, typed_settings(ctx), inherited))
    _announce(plan)
    if dry_run:
        _show_plan(plan)
    else:
        _carry_out(ctx, plan, report, show_measured=True)


def _announce(plan: Plan) -> None:
    for note in plan.notes:
        say(f"note: {note}")


def _show_plan(plan: Plan) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in plan.describe():
        table.add_row(Text(name), Text(visible(value)))
    show(table)
    click.echo(
        f"\nThe first prompt, {len(plan.first_prompt_ids)} tokens:\n{visible(plan.first_prompt)}"
    )


def _carry_out(ctx: click.Context, plan: Plan, report: bool, show_measured: bool = False) -> None:
    """Make what the plan asks for, and finish the run.

    Raises:
        Stopped: A signal came; the message has the command that resumes the run.
        XsampleError: As `xsample.making.make` and `_finish` raise it.
    """
    from engine.system.screen import open_display
    from xsample.making import make

    if plan.memory.warning:
        say(f"warning: {plan.memory.warning}")
    try:
        with sigterm_like_ctrl_c():
            with open_display() as display:
                store = make(plan, display)
            _finish(plan, store, report, show_measured)
    except StoreError as error:
        raise StoreError(f"{error} (with --out {plan.out})") from error
    except KeyboardInterrupt as error:
        out = [] if plan.config.out else ["--out", str(plan.out)]
        resume = shlex.join(["xsample", str(ctx.command.name), *typed_arguments(ctx), *out])
        raise Stopped(
            f"stopped; what was finished is kept, this goes on with it: {resume}", error
        ) from error


def _finish(plan: Plan, store: RunStore, report: bool, show_measured: bool) -> None:
    """Write and show summary and report; a shard has neither."""
    if plan.shard == WHOLE:
        finish(store, plan.grader if plan.problems else None, show_measured, report)
        return
    click.echo(f"run directory: {store.path}")
    say(
        f"note: shard {plan.shard} is made; when all are, the same command without --shard "
        "grades and reports the run"
    )
