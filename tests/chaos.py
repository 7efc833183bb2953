"""Chaos: runs that are hit at random moments, and resumed until they are done, against one that was
left alone.

    python -m tests.chaos --runs 50 [--seed S]

A run is the command as a user starts it. A blow is a signal to one of its processes; after a blow
that ended it the same command goes on with it. Every run must end complete, with the tokens of the
undisturbed one, and leave nothing. All that is random comes from the seed; a run that fails stays
on disk, and its folder is named.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from engine.errors import RunDirectoryError
from engine.store.run_store import RunStore
from engine.store.verify import verify_run
from tests.support.engines import assert_same
from tests.support.leftovers import Traces, settled
from tests.support.paths import ROOT
from tests.support.waiting import comes_true

SETTINGS = {
    "budget": "0,2,unlimited", "direction": "both", "dtype": "float32", "limit": 30, "samples": 4,
    "kv-cache-gib": 0.25, "step-timeout": 10, "max-num-seqs": 16,
}  # fmt: skip
STAGES = ("starting", "loading", "sampling", "grading", "report")
_MAX_BLOWS, _MAX_COMMANDS = 3, 6
# Blows that wait until an engine loads its twin's weights, a moment too short to be met otherwise.
_SHARE_AT_SWITCH = 0.25
_SWITCH = "an engine begins to load weights"
_NEVER_SAID = ("Traceback", "This is a bug", "(raylet)")
_MAX_FOLDERS = 2  # that a killed driver may leave to the next start: those of a report
# Engines see at once that their driver is gone, Ray's agents give its head a minute.
_FORGOTTEN_SECONDS = 300.0
_ENDING_SECONDS = 300.0  # a command that takes longer after the last blow hangs


class Command:
    """`xsample run` with `settings` into `out`, at the head of a session and process group of its
    own.
    """

    def __init__(self, settings: dict[str, object], out: Path, traces: Traces, log: Path) -> None:
        options = [
            text for name, value in settings.items() for text in (f"--{name}", str(value)) if text
        ]
        self.out, self.traces, self._log = out, traces, log
        self._began = time.monotonic()
        with log.open("wb") as stderr, log.with_suffix(".out").open("wb") as stdout:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "xsample", "run", *options, "--out", str(out)],
                env=traces.environment | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True,
            )  # fmt: skip
        self.pid = self._process.pid
        traces.began(self.pid)

    @property
    def elapsed(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._began

    def code(self) -> int | None:
        """Its exit code as a shell gives it; None while it runs."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def end(self, within: float) -> int | None:
        """Its exit code, once it has ended; None if it has not after so many seconds."""
        settled(within, lambda: ["it runs"] if self.code() is None else [])
        return self.code()

    def said(self) -> list[str]:
        """The lines of its standard error."""
        return [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]

    def results(self) -> list[str]:
        """The lines of its standard output."""
        return self._log.with_suffix(".out").read_text(errors="replace").splitlines()

    def stage(self) -> str:
        """What it is doing, by the last line that tells."""
        return next(
            (stage for line in reversed(self.said()) if (stage := stage_of(line))), "starting"
        )

    def num_switches(self) -> int:
        """How often an engine has begun to load weights, in all commands of this run."""
        logs = (self.out / "logs").glob("driver-*.jsonl")
        return sum(log.read_text(errors="replace").count(_SWITCH) for log in logs)

    def workers(self) -> list[psutil.Process]:
        """Its engines that are alive, the base's first."""
        found = [
            each for each in self.traces.processes() if _title(each).startswith("ray::PolicyWorker")
        ]
        return sorted(found, key=lambda each: each.environ().get("VLLM_CPU_OMP_THREADS_BIND", ""))


def stage_of(line: str) -> str | None:
    """The stage of a run that has said `line` last, if it tells."""
    signs = {
        "run directory:": "starting", "starting Ray": "loading", "loading": "loading",
        "still loading": "loading", "pair 1 failed": "loading", "cross-sampling": "sampling",
        "still cross-sampling": "sampling", "grading": "grading", "figures:": "report",
        "comparing runs": "report", "page": "report",
    }  # fmt: skip
    if line.endswith(
        (": accuracy", ": sparsity", ": position", ": entropy", ": identity", ": mechanics")
    ):
        return "report"
    return next((stage for sign, stage in signs.items() if line.startswith(sign)), None)


@dataclass(frozen=True, slots=True)
class Kind:
    """A blow. codes: what the command may end with then, as documented; only 0 where it has to
    recover by itself.

    find: the process that is hit, None where there is none now; group: all of its process group
    with it.
    """

    name: str
    number: signal.Signals
    find: Callable[[Command], int | None]
    codes: frozenset[int]
    group: bool = False

    @property
    def survived(self) -> bool:
        """Whether the command must go on to its end."""
        return self.codes == {0}


def _driver(command: Command) -> int | None:
    return command.pid if command.code() is None else None


def _worker(place: int) -> Callable[[Command], int | None]:
    def find(command: Command) -> int | None:
        workers = command.workers()
        return workers[place].pid if len(workers) == 2 else None

    return find


def _daemon(name: str) -> Callable[[Command], int | None]:
    def find(command: Command) -> int | None:
        return next(
            (each.pid for each in command.traces.processes() if Path(_title(each)).name == name),
            None,
        )

    return find


def _busy_worker(command: Command) -> int | None:
    """Nobody waits for step_timeout before there are steps."""
    return _worker(1)(command) if command.stage() == "sampling" else None


KINDS = (
    Kind("SIGKILL driver", signal.SIGKILL, _driver, frozenset({137})),
    Kind("SIGKILL base worker", signal.SIGKILL, _worker(0), frozenset({0})),
    Kind("SIGKILL RL worker", signal.SIGKILL, _worker(1), frozenset({0})),
    Kind("SIGKILL raylet", signal.SIGKILL, _daemon("raylet"), frozenset({0, 1, 3})),
    Kind("SIGKILL gcs_server", signal.SIGKILL, _daemon("gcs_server"), frozenset({0, 1, 3})),
    Kind("SIGTERM driver", signal.SIGTERM, _driver, frozenset({143})),
    Kind("Ctrl-C", signal.SIGINT, _driver, frozenset({130}), group=True),
    Kind("SIGSTOP RL worker", signal.SIGSTOP, _busy_worker, frozenset({0})),
)


@dataclass(frozen=True, slots=True)
class Blow:
    """What hit a command, when (seconds after its start), and what it was doing."""

    kind: Kind
    moment: float
    stage: str
    doing: str


@dataclass(frozen=True, slots=True)
class Pace:
    """What an undisturbed run takes, in seconds: until it loads, until it samples, until it grades,
    in all.
    """

    loading: float
    sampling: float
    grading: float
    end: float

    def expected(self, share: float) -> float:
        """Of a run that has this share of its trajectories still to make."""
        rest = self.end - self.grading
        return (
            self.sampling + share * (self.grading - self.sampling) + rest
            if share
            else self.loading + rest
        )


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """The run that is left alone: its settings, what all others must give, and how long it
    takes.
    """

    settings: dict[str, object]
    store: RunStore
    pace: Pace


def leave_alone(settings: dict[str, object], folder: Path) -> Undisturbed:
    """Carry out a run that nothing disturbs."""
    run = ChaosRun(settings, folder)
    command = run.start()
    entered: dict[str, float] = {}
    while command.code() is None:
        entered.setdefault(command.stage(), command.elapsed)
        time.sleep(0.05)
    pace = Pace(entered["loading"], entered["sampling"], entered["grading"], command.elapsed)
    if not run.end(command, []) or run.faults:
        sys.exit(f"the run that nothing disturbs has failed: {run.faults}, {command.said()[-1:]}")
    return Undisturbed(settings, RunStore.read(run.out), pace)


class ChaosRun:
    """One run, from its first command to complete. faults: what was not as it should be, a sentence
    each.
    """

    def __init__(self, settings: dict[str, object], folder: Path) -> None:
        self._settings, self.folder = settings, folder
        self.out, temporary = folder / "run", folder / "t"
        temporary.mkdir(parents=True)
        self.traces = Traces(temporary)
        self.blows: list[Blow] = []
        self.faults: list[str] = []
        self.num_commands = 0

    def start(self) -> Command:
        """The same command, once more."""
        self.num_commands += 1
        log = self.folder / f"command-{self.num_commands}.err"
        return Command(self._settings, self.out, self.traces, log)

    def carry_out(
        self, undisturbed: Undisturbed, chance: random.Random, tell: Callable[[str], None]
    ) -> None:
        """Hit it, and start it again, until it is done or has failed."""
        done = False
        while not (done or self.faults):
            if self.num_commands == _MAX_COMMANDS:
                self.faults.append(f"not done after {_MAX_COMMANDS} commands")
                break
            command, here = self.start(), len(self.blows)
            while self._is_due(chance) and (
                blow := self._strike(command, undisturbed.pace, chance)
            ):
                self.blows.append(blow)
                if not blow.kind.survived:
                    break
            done = self.end(command, self.blows[here:], chance.random() < 0.5)
            if done and not self.blows:  # it was quicker than its blow: once more, from nothing
                shutil.rmtree(self.out)
                done, self.num_commands = False, 0
            for blow in self.blows[here:]:
                tell(
                    f"{blow.kind.name:20} {blow.moment:5.1f} s  {blow.stage:8}  "
                    f"{blow.doing[:60]:60}  {self._ended}"
                )
        if done:
            self.check_result(undisturbed.store)
        if self.faults:
            self.traces.kill()

    def _is_due(self, chance: random.Random) -> bool:
        return len(self.blows) < _MAX_BLOWS and (not self.blows or chance.random() < 0.5)

    def _strike(self, command: Command, pace: Pace, chance: random.Random) -> Blow | None:
        """Hit the command in a random moment of the time that it will take; None if it ended
        before.
        """
        moment = command.elapsed + chance.random() * pace.expected(self._share_missing())
        kinds = chance.sample(KINDS, len(KINDS))
        at_switch, before = chance.random() < _SHARE_AT_SWITCH, command.num_switches()

        def is_time() -> bool:
            switches = at_switch and command.num_switches() > before
            return switches or command.code() is not None

        comes_true(is_time, pace.end if at_switch else moment - command.elapsed)
        return strike(command, kinds)

    def _share_missing(self) -> float:
        try:
            found = verify_run(RunStore.read(self.out))
        except RunDirectoryError:
            return 1.0  # nothing is there yet
        return len(found.missing) / found.num_expected

    def end(self, command: Command, blows: Sequence[Blow], at_once: bool = False) -> bool:
        """Wait for its end and look at how it ended. Returns whether it is done.

        at_once: after SIGKILL the same command is started while engines and Ray of the killed one
        may still be there.
        """
        struck = command.elapsed
        code = command.end(_ENDING_SECONDS)
        last = (command.said() or [""])[-1][:120]
        self._ended = f"exit {code} after {command.elapsed - struck:.1f} s: {last}"
        allowed = set(blows[-1].kind.codes) if blows else {0}
        if blows and command.elapsed - struck < 2:
            allowed |= {0}  # it was done when it was hit
        if len(blows) >= _MAX_BLOWS:
            allowed |= {4}  # the same trajectories failed three times
        if code not in allowed:
            last = blows[-1].kind.name if blows else "no blow"
            self.faults.append(f"after {last} it ended with {code}, not {sorted(allowed)}")
        unheard = bool(blows) and not command.said()  # hit before it could listen
        return self._check(command, code, at_once, unheard)

    def _check(self, command: Command, code: int | None, at_once: bool, unheard: bool) -> bool:
        """What the command has said and left, and what it has committed. Returns whether the run is
        done.
        """
        lines = command.said()
        self.faults += [
            f"it said: {line}"
            for line in (*lines, *command.results())
            if any(map(line.count, _NEVER_SAID))
        ]
        by_ray = code == 1 and not (
            lines and lines[-1].startswith("xsample: ")
        )  # a dead Ray may end its driver so
        was_done = any(line.startswith("report: ") for line in command.results())
        if (
            code not in (0, 137)
            and not (unheard or by_ray or was_done)
            and not (lines and lines[-1].startswith("xsample: "))
        ):
            self.faults.append(f"exit {code}, and the last line is {lines[-1:]}")
        if by_ray:
            self.faults += self.traces.left(folders=_MAX_FOLDERS, within=_FORGOTTEN_SECONDS)
        elif unheard:
            pass  # it had started nothing, nor cleared up after the one before
        elif code != 137:
            self.faults += self.traces.left()
        elif not at_once:
            self.faults += self.traces.left(folders=_MAX_FOLDERS, within=_FORGOTTEN_SECONDS)
        if self._has_begun():
            found = verify_run(RunStore.read(self.out))
            if found.double or found.unexpected or found.miscounted or found.unreadable:
                self.faults.append(f"what is committed is not right: {found}")
        return code == 0

    def _has_begun(self) -> bool:
        return (self.out / "run.json").exists()

    def check_result(self, expected: RunStore) -> None:
        """The run that is done is complete, graded, and what the undisturbed one is."""
        verify = [sys.executable, "-m", "xsample", "verify", str(self.out)]
        said = subprocess.run(
            verify, env=self.traces.environment | {"PYTHONPATH": str(ROOT)}, capture_output=True
        )
        if said.returncode or not said.stdout.startswith(
            f"complete: {expected.num_expected:,} ".encode()
        ):
            self.faults.append(
                f"xsample verify ended with {said.returncode}: {said.stdout!r} {said.stderr!r}"
            )
        made = RunStore.read(self.out)
        if made.grades().num_rows != expected.num_expected:
            self.faults.append(
                f"{made.grades().num_rows} grades of {expected.num_expected} trajectories"
            )
        try:
            assert_same(made.tokens().to_table(), expected.tokens().to_table())
        except AssertionError as error:
            self.faults.append(f"not as undisturbed: {error}")


def strike(command: Command, kinds: Sequence[Kind]) -> Blow | None:
    """Hit it now, with the first of `kinds` whose target is there; None if it has ended."""
    for kind in kinds if command.code() is None else ():
        if (target := kind.find(command)) is not None:
            doing = (command.said() or ["(nothing yet)"])[-1]
            blow = Blow(kind, command.elapsed, command.stage(), doing)
            try:
                (os.killpg if kind.group else os.kill)(target, kind.number)
            except ProcessLookupError:
                continue
            return blow
    return None


def _title(process: psutil.Process) -> str:
    try:
        return next(iter(process.cmdline()), "")
    except psutil.Error:
        return ""


def table(blows: Sequence[Blow]) -> str:
    """How often each kind hit each stage."""
    counts = Counter((blow.kind.name, blow.stage) for blow in blows)
    rows = [["", *STAGES, "all"]]
    for name in [kind.name for kind in KINDS]:
        numbers = [counts[name, stage] for stage in STAGES]
        rows.append([name, *map(str, numbers), str(sum(numbers))])
    totals = [sum(counts[kind.name, stage] for kind in KINDS) for stage in STAGES]
    rows.append(["all", *map(str, totals), str(sum(totals))])
    return "\n".join(f"{row[0]:20}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows)


def main() -> int:
    """Carry out the runs; returns the exit code, 0 if there is no fault."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Hit runs at random, and resume them."
    )
    parser.add_argument("--runs", type=int, default=50, metavar="N", help="default: 50")
    parser.add_argument(
        "--seed", type=int, default=None, metavar="S", help="default: another one every time"
    )
    given = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # as a background job of a shell it is ignored
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    folder = Path(tempfile.mkdtemp(prefix="c"))  # short: sockets have their paths in it
    print(f"seed {seed}, in {folder}", flush=True)
    undisturbed = leave_alone(SETTINGS, folder / "0")
    print(
        f"undisturbed: {undisturbed.store.num_expected} trajectories, {undisturbed.pace}",
        flush=True,
    )
    blows: list[Blow] = []
    num_commands = num_faults = 0
    for number in range(1, given.runs + 1):
        run = ChaosRun(SETTINGS, folder / str(number))
        run.carry_out(
            undisturbed,
            random.Random(f"{seed}-{number}"),
            partial(print, f"{number:3} ", flush=True),
        )
        for fault in run.faults:
            print(f"{number:3}  FAULT {fault} (see {run.folder})", flush=True)
        blows += run.blows
        num_commands, num_faults = num_commands + run.num_commands, num_faults + len(run.faults)
        if not run.faults:
            shutil.rmtree(run.folder)
    print(f"\n{table(blows)}\n")
    made = given.runs * undisturbed.store.num_expected
    print(
        f"{given.runs} runs, {num_commands} commands, {made:,} trajectories, {len(blows)} "
        f"blows, {num_faults} faults"
    )
    if not num_faults:
        shutil.rmtree(folder)
    return min(num_faults, 1)


if __name__ == "__main__":
    sys.exit(main())
