"""Commands that start engines: `xsample run` and `xsample score`. Their options are the fields of
RunConfig.
"""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.cli_read import finish
from engine.errors import ConfigError, StoreError
from engine.options import ConfigCommand, arguments, overrides
from engine.run.description import describe, manifest_of
from engine.shard import WHOLE
from engine.shell import debug_option, say, show
from engine.system.log import shown
from engine.system.signals import Stopped, sigterm_like_ctrl_c
from engine.system.terminal import visible

if TYPE_CHECKING:
    from engine.config.run_config import RunConfig
    from engine.core import ExternalResponses
    from engine.models.pair_info import PairInfo
    from engine.run.plan import Plan
    from engine.store.run_store import RunStore

# Settings of `run` that say how responses are made: `score` has them given.
_NOT_SCORED = (
    "match", "limit", "samples", "direction", "budget", "criterion", "threshold", "window", "eos",
    "extrapolate", "extrapolate_to", "trace", "max_tokens", "seed",
)  # fmt: skip
# What `score` takes over from a run: all that decides the numbers, and nothing of where and how
# fast.
_INHERITED = (
    "base",
    "rl",
    "temperature",
    "top_p",
    "top_k",
    "record_threshold",
    "record_top_k",
    "dtype",
)


_config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="YAML with these options as its keys",
)
_dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    help="check everything, show the plan and the first prompt, start nothing",
)
_report_option = click.option(
    "--report/--no-report",
    default=True,
    help="end with figures and a page in RUN/report [default: with]",
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
    """Make, grade and summarise the responses of a pair. Without models: the embedded pair, on the
    CPU.

    The same command with the same --out resumes.
    """
    from engine.run.plan import prepare
    from engine.run.settings import load
    from evaluators.tasks.registry import load_task

    resolved = load(config, overrides(ctx))
    plan = prepare(resolved, load_task(resolved))
    _announce(plan)
    if dry_run:
        _show_plan(plan)
    else:
        _carry_out(ctx, plan, report)


@click.command("score", cls=ConfigCommand, leave_out=_NOT_SCORED)
@click.argument("given", metavar="GIVEN", type=click.Path(path_type=Path))
@_config_option
@_dry_run_option
@_report_option
@debug_option
@click.pass_context
def score_command(
    ctx: click.Context,
    /,
    given: Path,
    config: Path | None,
    dry_run: bool,
    report: bool,
    **_: object,
) -> None:
    """Measure given responses, token by token, under a pair, into the same tables.

    GIVEN is a run directory, measured under its own pair and settings unless others are given; or a
    JSONL or Parquet file with a row a response: token_ids, or response (text); and
    prompt_token_ids, prompt (text as the model saw it), or problem (an id of --task). Text of a
    response that ended by itself needs finish_reason stop: it is given its EOS. With --task they
    are graded too. The same command with the same --out resumes.
    """
    from engine.run.plan import prepare_score
    from evaluators.external.reading import read_given, task_of

    resolved = _settings_to_score(ctx, given, config)
    task = task_of(given, resolved)

    def read(pair: PairInfo) -> ExternalResponses:
        return read_given(
            given, resolved, task, pair.tokenizer, pair.stop_token_ids, pair.context_length
        )

    plan = prepare_score(resolved, read)
    _announce(plan)
    if dry_run:
        _show_plan(plan)
    else:
        _carry_out(ctx, plan, report, show_measured=True)


def _settings_to_score(ctx: click.Context, given: Path, file: Path | None) -> RunConfig:
    from engine.run.settings import load, settings_of
    from evaluators.external.reading import is_run

    resolved = load(file, overrides(ctx), settings_of(given, _INHERITED) if is_run(given) else None)
    for name in _NOT_SCORED:
        if name in resolved.model_fields_set:
            raise ConfigError(
                f"{file}: {name} is {str(getattr(resolved, name))!r}, but says how responses "
                "are made, which are given "
                f"here: leave {name} out"
            )
    return resolved


def _announce(plan: Plan) -> None:
    for note in plan.notes:
        say(f"note: {note}")


def _show_plan(plan: Plan) -> None:
    from rich.table import Table
    from rich.text import Text

    from engine.store.run_store import RunStore

    RunStore.check(plan.out, manifest_of(plan))
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in describe(plan):
        table.add_row(Text(name), Text(visible(value)))
    show(table)
    click.echo(
        f"\nThe first prompt, {len(plan.first_prompt_ids)} tokens:\n{visible(plan.first_prompt)}"
    )


def _carry_out(ctx: click.Context, plan: Plan, report: bool, show_measured: bool = False) -> None:
    """From the plan to the summary. Stopped by a signal it says which command goes on."""
    if plan.memory.warning:
        say(f"warning: {plan.memory.warning}")
    try:
        with sigterm_like_ctrl_c():
            _finish(plan, _execute(plan), report, show_measured)
    except StoreError as error:
        raise StoreError(f"{error} (with --out {plan.out})") from error
    except KeyboardInterrupt as by:
        out = [] if plan.config.out else ["--out", str(plan.out)]
        resume = shlex.join(["xsample", str(ctx.command.name), *arguments(ctx), *out])
        raise Stopped(
            f"stopped; what was finished is kept, this goes on with it: {resume}", by
        ) from by


def _execute(plan: Plan) -> RunStore:
    from engine.run.execute import execute
    from engine.system.display import open_display
    from evaluators.grading.grader import Grader

    graded = plan.problems and plan.shard == WHOLE
    grading = Grader(plan.problems, plan.grader) if graded else nullcontext()
    with grading as grader, open_display() as display, shown(display.note, plan.config.verbose):
        display.note(f"run directory: {plan.out}")
        return execute(plan, grader, display)


def _finish(plan: Plan, store: RunStore, report: bool, show_measured: bool) -> None:
    """Summary and report; a shard has neither."""
    if plan.shard == WHOLE:
        finish(store, plan.grader if plan.problems else None, show_measured, report)
        return
    click.echo(f"run directory: {store.path}")
    say(
        f"note: shard {plan.shard} is made; when all are, the same command without --shard "
        "grades and reports the run"
    )
