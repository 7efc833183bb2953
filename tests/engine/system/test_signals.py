"""Signals are held back inside the block, and delivered after it to whoever handled them before. In
real processes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.system.signals import STOP_SIGNALS, HeldSignals, Interrupted
from tests.support.paths import ROOT

PROLOGUE = """
import os, signal, sys
from engine.system.signals import HeldSignals, Interrupted

def say(*words):
    print(*words, flush=True)

def send(name):
    os.kill(os.getpid(), getattr(signal, name))
"""
SIGNALS = pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])


def run(program: str, *arguments: str) -> tuple[list[str], int]:
    """The lines that the program prints, and its exit status (minus the signal that ended it)."""
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        start_new_session=True,
    )
    return done.stdout.splitlines(), done.returncode


@contextmanager
def handling(number: signal.Signals, came: list[int]) -> Iterator[None]:
    before = signal.signal(number, lambda n, _: came.append(n))
    try:
        yield
    finally:
        signal.signal(number, before)


@SIGNALS
def test_a_signal_inside_the_block_is_delivered_when_the_block_has_ended(name: str) -> None:
    number = getattr(signal, name)
    came: list[int] = []
    with handling(number, came):
        with HeldSignals():
            os.kill(os.getpid(), number)
            assert came == []
        assert came == [number]


def test_ctrl_c_inside_the_block_lets_the_work_finish_and_then_interrupts() -> None:
    lines, status = run("""
try:
    with HeldSignals():
        send("SIGINT")
        say("still at work")
    say("never reached")
except KeyboardInterrupt:
    say("interrupted")
""")
    assert (lines, status) == (["still at work", "interrupted"], 0)


def test_sigterm_inside_the_block_ends_the_process_after_it() -> None:
    lines, status = run("""
with HeldSignals():
    send("SIGTERM")
    say("still at work")
say("never reached")
""")
    assert (lines, status) == (["still at work"], -signal.SIGTERM)


@SIGNALS
def test_check_unwinds_through_the_clean_up_before_the_signal_is_delivered(name: str) -> None:
    lines, status = run(
        """
name = sys.argv[1]
signal.signal(getattr(signal, name), lambda *_: say("delivered"))
with HeldSignals() as held:
    try:
        held.check()
        send(name)
        say("safe point")
        held.check()
        say("never reached")
    finally:
        say("clean-up")
say("after")
""",
        name,
    )
    assert (lines, status) == (["safe point", "clean-up", "delivered", "after"], 0)


def test_the_clean_up_itself_is_not_interrupted_by_impatience() -> None:
    lines, status = run("""
try:
    with HeldSignals() as held:
        try:
            send("SIGINT")
            held.check()
        finally:
            send("SIGINT")
            send("SIGINT")
            say("clean-up done")
except KeyboardInterrupt:
    say("interrupted once")
""")
    assert (lines, status) == (["clean-up done", "interrupted once"], 0)


def test_no_sigterm_is_lost_or_taken_by_ray_while_ray_starts() -> None:
    """Ray's Python would handle it with a SystemExit, its C++ by ending the process. SIGTERM all
    the time, but for the few ms in which the handler of the C++ is there.
    """
    lines, status = run("""
import ctypes, threading
from engine.lockstep.cluster import own_cluster

def of_the_system():
    action = ctypes.create_string_buffer(256)
    ctypes.CDLL(None).sigaction(signal.SIGTERM, None, action)
    return action[:8]

def keep_sending(handler):
    while not over.wait(0.01):
        if of_the_system() == handler:
            send("SIGTERM")
            num_sent.append(1)

over, num_sent = threading.Event(), []
with HeldSignals() as held:
    sender = threading.Thread(target=keep_sending, args=(of_the_system(),))
    sender.start()
    with own_cluster(1):
        say("up", len(num_sent) > 20)
        num_sent.clear()
        while not num_sent:
            pass
        over.set()
        sender.join()
        say("held")
        held.check()
    say("never reached")
""")
    assert (lines, status) == (["up True", "held"], -signal.SIGTERM)


def test_an_error_of_the_block_is_not_hidden_by_a_signal() -> None:
    came: list[int] = []
    with (
        handling(signal.SIGTERM, came),
        pytest.raises(ValueError, match="the work's own"),
        HeldSignals(),
    ):
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("the work's own")


def test_without_a_signal_nothing_happens_and_the_handlers_are_as_before() -> None:
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    with HeldSignals() as held:
        held.check()
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_handlers_are_as_before_also_after_a_signal_and_after_an_error() -> None:
    came: list[int] = []
    with handling(signal.SIGINT, came):
        handler = signal.getsignal(signal.SIGINT)
        with HeldSignals() as held:
            os.kill(os.getpid(), signal.SIGINT)
            held.check()
        assert signal.getsignal(signal.SIGINT) is handler
        with pytest.raises(ValueError, match="x"), HeldSignals():
            raise ValueError("x")
        assert signal.getsignal(signal.SIGINT) is handler
    assert came == [signal.SIGINT]


def test_a_signal_that_was_ignored_before_stays_ignored() -> None:
    lines, status = run("""
signal.signal(signal.SIGHUP, signal.SIG_IGN)
with HeldSignals() as held:
    send("SIGHUP")
    held.check()
    say("goes on")
say("after")
""")
    assert (lines, status) == (["goes on", "after"], 0)


def test_outside_the_main_thread_it_does_nothing() -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with HeldSignals() as held:
                held.check()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_interrupted_is_not_caught_as_an_error() -> None:
    assert not issubclass(Interrupted, Exception)


@pytest.mark.parametrize(
    ("name", "raised"), [("SIGINT", "KeyboardInterrupt"), ("SIGTERM", "Terminated")]
)
def test_a_signal_that_strikes_where_python_ignores_exceptions_is_raised_again(
    name: str, raised: str
) -> None:
    lines, status = run(f"""
import time
from engine.system.signals import sigterm_like_ctrl_c

class Finalised:
    def __del__(self):
        send("{name}")
        say("never reached")

try:
    with sigterm_like_ctrl_c():
        Finalised()
        say("goes on")
        time.sleep(300)
except KeyboardInterrupt as error:
    say(type(error).__name__)
""")
    assert (lines, status) == (["goes on", raised], 0)


def test_a_signal_that_is_sent_again_is_held_where_signals_are_held() -> None:
    lines, status = run("""
import time
from engine.system.signals import Terminated, sigterm_like_ctrl_c
from engine.system.signals import keep_handlers

class Finalised:
    def __del__(self):
        send("SIGTERM")

try:
    with sigterm_like_ctrl_c():
        Finalised()
        with HeldSignals(), keep_handlers():
            time.sleep(0.05)
            say("whole")
        time.sleep(300)
except Terminated:
    say("terminated")
""")
    assert (lines, status) == (["whole", "terminated"], 0)


def test_a_signal_that_was_ignored_at_the_end_of_the_block_is_not_lost() -> None:
    lines, status = run("""
from engine.system.signals import Terminated, sigterm_like_ctrl_c

class Finalised:
    def __del__(self):
        send("SIGTERM")

try:
    with sigterm_like_ctrl_c():
        with sigterm_like_ctrl_c():
            Finalised()
    say("never reached")
except Terminated:
    say("terminated")
""")
    assert (lines, status) == (["terminated"], 0)


def test_handlers_that_a_library_takes_away_are_put_back() -> None:
    lines, status = run("""
import ctypes, time
from engine.system.signals import keep_handlers
signal.signal(signal.SIGTERM, lambda *_: say("handled"))
with keep_handlers():
    ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(signal.SIG_DFL))  # as Ray's C++ does
    time.sleep(0.1)
    send("SIGTERM")
    time.sleep(0.1)
signal.signal(signal.SIGALRM, lambda *_: say("still ticking"))
time.sleep(0.1)
say("after")
""")
    assert (lines, status) == (["handled", "after"], 0)
