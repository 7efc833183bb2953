"""The functions of `import xsample`: plan, run, score, open, report.

Each does what the command of its name does, with the same settings and the same errors. Nothing
heavy is imported before it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import ConfigError
from xsample.results import Run, write_report

if TYPE_CHECKING:
    from engine.config.run_config import RunConfig
    from engine.run.plan import Plan
    from evaluators.tasks.task_set import TaskSet


def load_config(file: str | PathLike[str] | None = None, **settings: Any) -> RunConfig:
    """Load the settings of a run from keywords, a YAML file, or both.

    Args:
        file: A YAML file whose keys are settings. Keywords override it.
        **settings: Any option of `xsample run`, with `_` for `-`: `max_tokens=8000`.

    Returns:
        The settings, checked and frozen; those that are not given have their defaults.

    Raises:
        ConfigError: A setting is not known, or its value is not possible.

    Example:
        >>> xsample.load_config("run.yaml", budget=8)
        >>> xsample.load_config(direction="both", budget=[0, 1, 8, None])  # None is unlimited
    """
    from engine.run.settings import load

    return load(None if file is None else Path(file), settings)


def prepare(config: RunConfig | str | PathLike[str] | None = None, **settings: Any) -> Plan:
    """Check everything that can be checked before an engine starts, and start nothing.

    Args:
        config: Settings from `load_config`, or a YAML file of settings.
        **settings: Settings that are not in `config`, or override it.

    Returns:
        The plan of the run. `print(plan)` shows what it would make and need; `plan.first_prompt` is
        the first prompt with its special tokens, `plan.out` the run directory, `plan.notes` what
        is worth knowing about the problems that were read.

    Raises:
        UsageError: A setting, a model, a problem or the run directory cannot be used as it is.

    Example:
        >>> plan = xsample.prepare(direction="reverse", budget=8)
        >>> print(plan)
    """
    from xsample.planning import plan_run

    return plan_run(_resolve(config, settings))


def run(
    plan: Plan | RunConfig | str | PathLike[str] | None = None,
    *,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Make, grade and summarise the responses of a pair of models.

    The same settings with the same `out` resume a run: what is committed is not made again. After
    Ctrl-C, too: the engines end, and what was finished is kept.

    Args:
        plan: A plan from `prepare`, settings from `load_config`, or a YAML file of settings.
        progress: Whether to show progress, in a terminal as in a notebook.
        **settings: Settings, where no plan is given. Without `base` and `rl` the embedded pair
            runs.

    Returns:
        The finished run.

    Raises:
        UsageError: A setting, a model, a problem or the run directory cannot be used as it is.
        IncompleteRunError: Trajectories are missing; the rest is kept, and the same call with `out`
            as that run directory goes on. GivenUpError: the missing ones failed again and again.
        EngineError: The engines could not be started.
        StoreError: The run directory failed, as on a full disk.

    Example:
        >>> run = xsample.run(direction="reverse", budget=8, out="runs/first")
        >>> run.summary()["arms"][0]["accuracy"]
    """
    from engine.run.plan import Plan

    if not isinstance(plan, Plan):
        plan = prepare(plan, **settings)
    elif settings:
        raise ConfigError(
            f"{', '.join(settings)}: a plan has its settings already; give them to prepare"
        )
    return _carry_out(plan, progress)


def score(
    responses: Run | str | PathLike[str],
    config: RunConfig | str | PathLike[str] | None = None,
    *,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Measure responses that exist already, token by token, under a pair.

    Args:
        responses: A run or its directory, or a JSONL or Parquet file with one row per response.
        config: Settings from `load_config`, or a YAML file of them. They override those of the run.
        progress: Whether to show progress.
        **settings: Settings that are not in `config`, or override it.

    Returns:
        The measured responses, as a run.

    Raises:
        UsageError: A setting or a response cannot be measured as it is.
        IncompleteRunError: Responses are missing; those that are measured are kept.
        EngineError: The engines could not be started.
        StoreError: The run directory failed, as on a full disk.

    Example:
        >>> xsample.score("runs/first", rl="checkpoints/global_step_200", out="runs/step-200")
    """
    from engine.config.inheritance import INHERITED_BY_SCORE
    from engine.run.settings import load_for_score, settings_of
    from evaluators.external.reading import is_run
    from xsample.planning import plan_score

    place = Path(responses)
    inherited = settings_of(place, INHERITED_BY_SCORE) if is_run(place) else None
    file, typed = _file_and_settings(config, settings)
    plan = plan_score(place, load_for_score(file, typed, inherited))
    return _carry_out(plan, progress)


def open_run(path: str | PathLike[str]) -> Run:
    """Open a run directory, finished or still growing.

    Args:
        path: The `out` of a run.

    Raises:
        RunDirectoryError: It is no run directory.
        StoreError: Its run.json cannot be read, or parts of another run are in it.

    Example:
        >>> xsample.open_run("runs/first").curve()
    """
    return Run(path)


def report(
    runs: Run | str | PathLike[str] | Sequence[Run | str | PathLike[str]],
    out: str | PathLike[str] | None = None,
    *,
    show_text: bool = False,
) -> Path:
    """Write figures, tables and one HTML page of a run, or of several side by side.

    What is missing in the report is a warning, a line each.

    Args:
        runs: A run or several, or their directories, in the order in which they are shown.
        out: The folder of the report. Of one run it is the folder `report` in the run directory.
        show_text: Also show the text of a gated set, which must not be published.

    Returns:
        The page, `index.html`.

    Raises:
        UsageError: A run cannot be read, or the folder cannot be used.

    Example:
        >>> xsample.report(["runs/js", "runs/random"], out="reports/control")
    """
    if isinstance(runs, (Run, str, PathLike)):
        return write_report([Path(runs)], out, show_text)
    return write_report([Path(run) for run in runs], out, show_text)


def tasks() -> list[TaskSet]:
    """The task sets that `task` knows by name, as `xsample tasks` lists them."""
    from evaluators.tasks.registry import TASKS

    return [TASKS[name] for name in sorted(TASKS)]


def _carry_out(plan: Plan, progress: bool) -> Run:
    from engine.shard import WHOLE
    from engine.system.log import close_logs, logger
    from engine.system.screen import open_display, silent_display
    from evaluators.scores.run_summary import check_complete, summarise_run
    from xsample.making import make

    try:
        with open_display() if progress else silent_display() as display:
            for note in filter(None, [*plan.notes, plan.memory.warning]):
                display.note(f"note: {note}")
            store = make(plan, display)
        if plan.shard == WHOLE:
            summary = summarise_run(store, plan.grader if plan.problems else None)
            check_complete(store, summary)
    except Exception as error:  # the last record of the run's log
        logger.error(str(error), exc_info=error, extra={"on_screen": True})
        raise
    finally:
        close_logs()
    return Run(store.path)


def _resolve(config: RunConfig | str | PathLike[str] | None, settings: dict[str, Any]) -> RunConfig:
    from engine.config.run_config import RunConfig
    from engine.run.settings import load

    if isinstance(config, RunConfig) and not settings:
        return config
    return load(*_file_and_settings(config, settings))


def _file_and_settings(
    config: RunConfig | str | PathLike[str] | None, settings: dict[str, Any]
) -> tuple[Path | None, dict[str, Any]]:
    """A YAML file to be read, and the settings that override it.

    Defaults of a configuration override nothing. What it has taken over from a run that it matches
    counts as given, so another `match` would only be followed in part.
    """
    if config is None:
        return None, settings
    if isinstance(config, (str, PathLike)):
        return Path(config), settings
    if config.match and "match" in settings:
        raise ConfigError(
            f"match is {str(settings['match'])!r}, but the configuration has taken its settings"
            f" over from {str(config.match)!r}: give match to load_config"
        )
    return None, {name: getattr(config, name) for name in config.model_fields_set} | settings
