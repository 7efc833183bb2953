"""One run, carried out: whatever the pairs finish is recorded, graded and shown.

`plan.prepare` checks everything that can be checked before an engine starts and gives a Plan;
`execute` carries it out. The same plan into the same directory resumes the run: trajectories that
are committed are not made again.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.core import TRAJECTORY_KEY, Trajectory
from engine.errors import EngineError, IncompleteRunError
from engine.lockstep import cluster
from engine.lockstep.worker import Decided
from engine.models.prompt import token_texts
from engine.run.grading import Grader
from engine.run.hosting import current_hosting
from engine.run.placement import pair_config
from engine.run.plan import Plan
from engine.run.recorder import Recorder
from engine.run.run_json import manifest_of
from engine.run.scheduler import Done, GivenUp, Note, Scheduler
from engine.store.run_store import RunStore
from engine.system.display import Display
from engine.system.log import log_event, write_logs
from engine.system.signals import HeldSignals


def execute(plan: Plan, grader: Grader | None, display: Display) -> RunStore:
    """Make every trajectory of the plan's shard that is not made yet.

    Whatever happens, what was committed stays.

    Args:
        plan: The run, checked.
        grader: What grades the responses. None where no gold answer is known, and for a shard:
            then there are no grades.
        display: Where the run says what it does.

    Returns:
        The run directory, closed and graded.

    Raises:
        IncompleteRunError: Trajectories are missing; the run can be resumed.
        EngineError: No engine could be started.
        StoreError: The run directory failed.
        RunDirectoryError: The run directory cannot be used.
        ConfigError: There is no Ray cluster at ray_address, or no folder for temporary files.
        KeyboardInterrupt: Ctrl-C or SIGTERM came; everything is cleaned up.
    """
    with RunStore.open(plan.out, manifest_of(plan), plan.shard) as store:
        if store.note:
            display.note(store.note)
        write_logs(plan.log_config("driver"))
        versions = store.manifest["versions"]
        log_event("the run begins", out=str(plan.out), shard=str(plan.shard), versions=versions)
        store.write_problems(plan.problems, plan.work.gated)
        store.write_vocabulary(lambda: token_texts(plan.pair.tokenizer, plan.pair.vocab_size))
        recorder = Recorder(plan, store, grader, display)
        if missing := recorder.missing():
            display.stage("starting Ray")
            with HeldSignals() as signals, current_hosting().open_cluster(plan):
                signals.check()
                _make(plan, missing, recorder, signals, display)
        recorder.finish()
        log_event("the run ends", trajectories=recorder.num_done)
        _report_short_controls(plan, store, display)
    return store


def _make(
    plan: Plan,
    keys: Sequence[Trajectory],
    recorder: Recorder,
    signals: HeldSignals,
    display: Display,
) -> None:
    """The main loop: whatever happens to the jobs of `keys` is recorded."""
    display.stage(f"loading {plan.pair.base} and {plan.pair.rl}")
    make_pair = current_hosting().make_pair
    pairs = [make_pair(pair_config(plan, number)) for number in range(plan.config.pairs)]
    jobs = [plan.work.job(key) for key in keys]
    scheduler = Scheduler(pairs, jobs, plan.rule, plan.num_slots)
    try:
        for event in scheduler.events():
            match event:
                case Done():
                    recorder.add(event, [keys[index] for index in event.jobs])
                case Decided():
                    recorder.progress.add_tokens(event.num_tokens)
                case GivenUp():
                    recorder.give_up([keys[index] for index in event.jobs], event)
                case Note():
                    display.note(event.text)
                    log_event(event.text, on_screen=True)
                    if event.ready:
                        display.stage(plan.work.stage)
                        recorder.progress.engines_ready()
            recorder.refresh()
            signals.check()
            cluster.check()
    except (IncompleteRunError, EngineError) as error:
        recorder.commit()
        if isinstance(error, EngineError) and not recorder.num_done:
            raise  # nothing to resume: the settings are to be mended
        raise IncompleteRunError(f"{error}. {recorder.describe_missing()}") from None
    finally:
        try:
            recorder.commit()  # first: dying engines can take longer than a batch system waits
        finally:
            scheduler.close()


def _report_short_controls(plan: Plan, store: RunStore, display: Display) -> None:
    """Tell the user how many responses of a control have fewer interventions than they should.

    A response that is shorter than that of the matched run may have too few positions.
    """
    matched = plan.work.matched
    if not matched:
        return
    rows = store.responses([*TRAJECTORY_KEY, "interventions"]).to_pylist()
    num_short = sum(
        row["interventions"]
        < matched[Trajectory(*(row[name] for name in TRAJECTORY_KEY))].interventions
        for row in rows
    )
    if num_short:
        display.note(
            f"{num_short:,} of {len(rows):,} responses have fewer interventions than in"
            f" {plan.config.match}: they have no more positions where one was possible"
        )
