"""The `xsample` command: reads what the user gave, calls the module that does it, prints what came out.

The options of `run` and `score` are the fields of RunConfig. Anything heavy is imported inside the command that needs
it, so `--help` is quick. What all commands share is in `shell.py`.
"""

from __future__ import annotations

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from engine.errors import ConfigError, IncompleteRunError, RunDirectoryError, StoreError
from engine.options import ConfigCommand, arguments, overrides
from engine.problem import GRADERS, GraderName
from engine.shell import Commands, Stopped, debug_option, say, show, sigterm_like_ctrl_c
from engine.terminal import visible

if TYPE_CHECKING:
    from engine.config import RunConfig
    from engine.given import GivenSet
    from engine.plan import Plan
    from engine.preflight import PairInfo
    from engine.store import RunStore

_MOST_LISTED = 20
# Settings of `run` that say how responses are made: `score` has them given.
_NOT_SCORED = (
    "match", "limit", "samples", "direction", "budget", "criterion", "threshold", "window", "eos", "extrapolate",
    "extrapolate_to", "trace", "max_tokens", "seed",
)  # fmt: skip
# What `score` takes over from a run: all that decides the numbers, and nothing of where and how fast.
_INHERITED = ("base", "rl", "temperature", "top_p", "top_k", "record_threshold", "record_top_k", "dtype")

_run_argument = click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
_config_option = click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="YAML with these options as its keys"
)
_dry_run_option = click.option(
    "--dry-run", is_flag=True, help="check everything, show the plan and the first prompt, start nothing"
)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xsample")
@debug_option
def commands() -> None:
    """Which tokens make an RL-tuned model better than its base? Runs both in lock-step and swaps their tokens."""


@commands.command("run", cls=ConfigCommand)
@_config_option
@_dry_run_option
@debug_option
@click.pass_context
def run_command(ctx: click.Context, /, config: Path | None, dry_run: bool, **_: object) -> None:
    """Make, grade and summarise the responses of a pair. Without models: the embedded pair, on the CPU.

    The same command with the same --out resumes.
    """
    from engine.plan import prepare
    from engine.settings import load
    from evaluators.tasks.registry import load_task

    resolved = load(config, overrides(ctx))
    plan = prepare(resolved, load_task(resolved))
    _announce(plan)
    if dry_run:
        _show_plan(plan)
    else:
        _summarise(_execute(ctx, plan), plan.grader)


@commands.command("score", cls=ConfigCommand, leave_out=_NOT_SCORED)
@click.argument("given", metavar="GIVEN", type=click.Path(path_type=Path))
@_config_option
@_dry_run_option
@debug_option
@click.pass_context
def score_command(ctx: click.Context, /, given: Path, config: Path | None, dry_run: bool, **_: object) -> None:
    """Measure given responses, token by token, under a pair, into the same tables.

    GIVEN is a run directory, measured under its own pair and settings unless others are given; or a JSONL or Parquet
    file with a row a response: token_ids, or response (text); and prompt_token_ids, prompt (text as the model saw it),
    or problem (an id of --task). Text of a response that ended by itself needs finish_reason stop: it is given its EOS.
    With --task they are graded too. The same command with the same --out resumes.
    """
    from engine.plan import prepare_score
    from evaluators.tasks.given import read_given, task_of

    resolved = _settings_to_score(ctx, given, config)
    task = task_of(given, resolved)

    def read(pair: PairInfo) -> GivenSet:
        return read_given(given, resolved, task, pair.tokenizer, pair.stop_token_ids, pair.context_length)

    plan = prepare_score(resolved, read)
    _announce(plan)
    if dry_run:
        _show_plan(plan)
    else:
        _summarise(_execute(ctx, plan), plan.grader if plan.problems else None, show_measured=True)


def _settings_to_score(ctx: click.Context, given: Path, file: Path | None) -> RunConfig:
    from engine.inherit import settings_of
    from engine.settings import load
    from evaluators.tasks.given import is_run

    resolved = load(file, overrides(ctx), settings_of(given, _INHERITED) if is_run(given) else None)
    for name in _NOT_SCORED:
        if name in resolved.model_fields_set:
            raise ConfigError(
                f"{file}: {name} is {str(getattr(resolved, name))!r}, but says how responses are made, which are given "
                f"here: leave {name} out"
            )
    return resolved


def _announce(plan: Plan) -> None:
    for note in plan.notes:
        say(f"note: {note}")


def _show_plan(plan: Plan) -> None:
    from rich.table import Table
    from rich.text import Text

    from engine.store import RunStore

    RunStore.check(plan.out, plan.manifest())
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in plan.describe():
        table.add_row(Text(name), Text(visible(value)))
    show(table)
    click.echo(f"\nThe first prompt, {len(plan.first_prompt_ids)} tokens:\n{visible(plan.first_prompt)}")


def _execute(ctx: click.Context, plan: Plan) -> RunStore:
    """Carry the plan out. Stopped by Ctrl-C or SIGTERM it says which command goes on."""
    from engine.display import open_display
    from engine.run import execute
    from evaluators.grading.grader import Grader

    if plan.memory.warning:
        say(f"warning: {plan.memory.warning}")
    try:
        grading = Grader(plan.problems, plan.grader) if plan.problems else nullcontext()
        with sigterm_like_ctrl_c(), grading as grader, open_display() as display:
            display.note(f"run directory: {plan.out}")
            return execute(plan, grader, display)
    except StoreError as error:
        raise StoreError(f"{error} (with --out {plan.out})") from error
    except KeyboardInterrupt as by:
        out = [] if plan.config.out else ["--out", str(plan.out)]
        resume = shlex.join(["xsample", str(ctx.command.name), *arguments(ctx), *out])
        raise Stopped(f"stopped; what was finished is kept, this goes on with it: {resume}", by) from by


def _summarise(store: RunStore, grader: GraderName | None, show_measured: bool = False) -> None:
    """Write and show the summary; without a grader there are no grades."""
    from engine.record import TRAJECTORY_KEY
    from evaluators.divergence import measured
    from evaluators.summary import COUNTED, render, render_measured, summarise, summarise_ungraded

    responses = store.responses([*TRAJECTORY_KEY, *COUNTED])
    summary = summarise(responses, store.grades(), grader) if grader else summarise_ungraded(responses)
    summary["measured"] = measured(store.tokens())
    summary["total"]["missing"] = missing = store.num_expected - summary["total"]["responses"]
    store.write_summary(summary)
    if grader:
        show(render(summary))
    if show_measured:
        show(render_measured(summary["measured"]))
    click.echo(f"run directory: {store.path}")
    if missing:
        raise IncompleteRunError(
            f"{missing} of {store.num_expected} trajectories are missing, and these numbers are of the rest alone "
            f"(what ends early is there first): the same command with --out {store.path} makes them"
        )


@commands.command("grade")
@_run_argument
@click.option("--grader", type=click.Choice(GRADERS), help="how answers are compared; default: as in the run")
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="grading processes")
@click.option("--deadline", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="seconds")
@debug_option
def grade_command(run: Path, grader: GraderName | None, workers: int, deadline: float) -> None:
    """Grade, or re-grade, the responses of RUN and summarise them.

    Gold answers and the order of options are those that the run keeps: neither the task's file nor a network is
    needed, and the same grader gives the same grades.
    """
    from engine.record import TRAJECTORY_KEY
    from engine.store import RunStore
    from evaluators.grading.grader import grade_responses

    store = RunStore.read(run)
    problems, grader = store.problems(), grader or store.grader
    if not problems:
        raise RunDirectoryError(f"run directory {run} holds no gold answers: score its responses again with --task")
    grades = grade_responses(store.response_parts([*TRAJECTORY_KEY, "text"]), problems, grader, workers, deadline)
    if not grades:
        raise RunDirectoryError(f"run directory {run} holds no responses yet: nothing to grade")
    store.write_grades(grades)
    _summarise(store, grader)


@commands.command("verify")
@_run_argument
@click.option(
    "--all", "list_all", is_flag=True, help=f"list everything that is wrong, not only {_MOST_LISTED} of a kind"
)
@debug_option
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
@debug_option
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
    show(table)


@commands.command("doctor")
@debug_option
@click.pass_context
def doctor_command(ctx: click.Context) -> None:
    """Is this machine able to run? Exit code 1 if not."""
    from engine.doctor import diagnose, render

    findings = diagnose()
    show(render(findings))
    if any(finding.ok is False for finding in findings):
        ctx.exit(1)


def main() -> None:
    """Entry point of the `xsample` command."""
    commands(prog_name="xsample")


if __name__ == "__main__":
    main()
