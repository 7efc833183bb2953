"""A run that is interrupted leaves nothing running and loses nothing committed; the same command
goes on with it.

The command runs as a process of its own. Signals go to its whole process group, as Ctrl-C in a
terminal does. The tests of this file share one run directory: each interrupts the run further on,
and the last one completes it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
import pytest

from engine.run.plan import Plan
from engine.store.run_store import RunStore
from engine.store.verify import Verification, verify_run
from tests.support.engines import assert_same, keys_of, of_keys, of_plan, plan_of, undisturbed
from tests.support.paths import ROOT
from tests.support.waiting import comes_true, is_alive

PART = {"samples": 2, "budget": "0,4,unlimited", "max_num_seqs": 8}
MARK = "XSAMPLE_TEST_RUN"
# The command, saying what it is about to do.
NARRATED = """
import time
import xsample.cli.main, engine.run.execute
from engine.lockstep.lease_runner import Completed, LeaseRunner
from engine.run.hosting import Hosting, hosted_by
from engine.run.recorder import Recorder

class NarratedPair(LeaseRunner):
    def __init__(self, config):
        super().__init__(config)
        self._begin, self.engines.begin = self.engines.begin, self.note
    def start(self, tell):
        print("*loading", flush=True)
        return super().start(tell)
    def note(self, policy, phase, *more):
        if phase:
            self._phase = "*paired" if phase.paired else "*solo"
        self._begin(policy, phase, *more)
    def run(self, jobs, rule):
        for event in super().run(jobs, rule):
            yield event
            if isinstance(event, Completed):
                print(self._phase, flush=True)

class NarratedRecorder(Recorder):
    def finish(self):
        print("*grading", flush=True)
        time.sleep(1)
        super().finish()

engine.run.execute.Recorder = NarratedRecorder
with hosted_by(Hosting(NarratedPair)):
    xsample.cli.main.main()
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RunStore:
    return undisturbed(tmp_path_factory)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_of(**PART, out=str(tmp_path_factory.mktemp("resume") / "run"))


class Command:
    """`xsample run` of a plan, in a process group of its own; every process that it starts carries
    its mark.
    """

    def __init__(self, plan: Plan) -> None:
        self._mark = f"{plan.out}-{time.monotonic_ns()}"
        given = {
            "limit": len(plan.problems),
            "direction": "both",
            "device": "cpu",
            "dtype": "float32",
        }
        options = given | PART | {"out": plan.out}
        arguments = [
            text
            for name, value in options.items()
            for text in (f"--{name.replace('_', '-')}", str(value))
        ]
        environment = os.environ | {MARK: self._mark, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", NARRATED, "run", "--no-report", *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.output = ""

    def read_until(self, text: str) -> None:
        """Read on until a line holds `text`."""
        assert self._process.stdout
        for line in self._process.stdout:
            self.output += line
            if text in line:
                return
        raise AssertionError(f"the command ended without {text!r}:\n{self.output}")

    def signal_group(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def signal_driver(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """Its exit code, once it has ended."""
        self.output += self._process.communicate(timeout=300)[0]
        return self._process.returncode

    def remains(self) -> list[psutil.Process]:
        """Everything that it has started and that still runs."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark and is_alive(process):
                    found.append(process)
        return found

    def kill(self) -> None:
        for process in self.remains():
            with suppress(psutil.Error):
                process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


@contextmanager
def command(plan: Plan) -> Iterator[Command]:
    running = Command(plan)
    try:
        yield running
    finally:
        running.kill()


def shared_memory() -> set[str]:
    return set(os.listdir("/dev/shm"))


def check_committed(plan: Plan, store: RunStore) -> Verification:
    """What is in the run directory is readable, there once, and what an undisturbed run gives."""
    partial = RunStore.read(plan.out)
    found = verify_run(partial)
    assert not (found.double or found.unexpected or found.miscounted or found.unreadable), found
    if found.num_tokens:
        committed = partial.tokens().to_table()
        assert_same(committed, of_keys(of_plan(store, plan), keys_of(committed)))
    return found


def test_when_the_command_is_killed_its_engines_end_by_themselves(
    store: RunStore, plan: Plan
) -> None:
    shared_before = shared_memory()
    with command(plan) as running:
        running.read_until("*paired")
        assert len(running.remains()) > 3
        running.signal_driver(signal.SIGKILL)
        assert comes_true(lambda: not running.remains()), running.remains()
        assert comes_true(lambda: shared_memory() <= shared_before), shared_memory() - shared_before
    assert check_committed(plan, store).missing


@pytest.mark.parametrize("moment", ["starting Ray", "*loading", "*paired", "*solo", "*grading"])
def test_ctrl_c_ends_the_run_cleanly_and_keeps_what_was_made(
    store: RunStore, plan: Plan, moment: str
) -> None:
    shared_before = shared_memory()
    missing_before = len(check_committed(plan, store).missing)
    with command(plan) as running:
        running.read_until(moment)
        if moment in ("starting Ray", "*loading"):
            time.sleep(1.5)
        running.signal_group(signal.SIGINT)
        assert running.end() == 130, running.output
        assert "this goes on with it" in running.output
        assert "Traceback" not in running.output
        assert comes_true(lambda: not running.remains()), running.remains()
        assert comes_true(lambda: shared_memory() <= shared_before), shared_memory() - shared_before
    missing = len(check_committed(plan, store).missing)
    if moment in ("starting Ray", "*loading"):
        assert missing == missing_before
    if moment in ("*paired", "*solo"):
        assert 0 < missing < missing_before
    if moment == "*grading":
        assert missing == 0


def test_the_same_command_completes_the_run_with_nothing_twice(store: RunStore, plan: Plan) -> None:
    with command(plan) as running:
        assert running.end() == 0, running.output
    completed = RunStore.read(plan.out)
    assert verify_run(completed).complete
    assert_same(completed.tokens().to_table(), of_plan(store, plan))
    assert completed.grades().num_rows == plan.work.num_trajectories
