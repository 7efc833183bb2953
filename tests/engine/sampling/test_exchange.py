"""The exchange: in step whatever the sizes, loud when the twin is elsewhere, silent, dead or
somebody else.

The twin is a second process. It does what it is told (`Twin.start`) on its own end of a link.
"""

from __future__ import annotations

import itertools
import mmap
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from engine.errors import LockstepError
from engine.sampling.distribution import Nuclei
from engine.sampling.exchange import Rows, exchange, exchange_numbers
from engine.sampling.link import FRAME_BYTES, Address, Link, Listener, SharedMemoryLink, connect
from tests.support.waiting import comes_true

KINDS = pytest.mark.parametrize("kind", ["shm", "tcp"])
LONG = 300.0  # seconds, for whoever is not meant to wait in vain


# What the twin does, and this process too, at its own end of the link.
def swap_all(link: Link, seed: int, here: int, sizes: list[tuple[int, int]]) -> int:
    """Swap messages of `sizes` bytes, whose contents both sides can work out; the number of wrong
    ones.
    """

    def message(side: int, n: int) -> bytes:
        return np.random.default_rng((seed, side, n)).bytes(sizes[n][side])

    return sum(link.swap(message(here, n)) != message(1 - here, n) for n in range(len(sizes)))


def exchange_all(link: Link, steps: list[tuple[Rows, Nuclei]]) -> list[Nuclei]:
    return [exchange(link, rows, nuclei) for rows, nuclei in steps]


def stay_silent(link: Link) -> None:
    pass


def live(pipe: Connection) -> None:
    """The twin's whole life. Its last link stays open until the next job."""
    while True:
        address, timeout, job, arguments = pipe.recv()
        try:
            link = connect(address, timeout)
            pipe.send(job(link, *arguments))
        except LockstepError as error:
            pipe.send(error)


class Twin:
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._num_owed = 0
        self.process = context.Process(target=live, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def start(
        self, address: Address, timeout: float, job: Callable[..., Any], *arguments: Any
    ) -> None:
        """Let the twin join and do `job(link, *arguments)`; returns at once."""
        while self._num_owed:  # a test that failed has not fetched its result
            self.result()
        self._pipe.send((address, timeout, job, arguments))
        self._num_owed += 1

    def result(self) -> Any:
        assert self._pipe.poll(LONG), "the twin hangs"
        self._num_owed -= 1
        return self._pipe.recv()

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self._pipe.close()


@pytest.fixture(scope="module")
def twin() -> Iterator[Twin]:
    made = Twin()
    yield made
    made.end()


def together(
    twin: Twin, kind: str, job: Callable[..., Any], mine: Any, theirs: Any, timeout: float = LONG
) -> Any:
    """Both sides' results, or errors, of `job` at either end of a link."""
    listener = Listener(kind, "127.0.0.1", timeout)
    twin.start(listener.address, timeout, job, *theirs)
    link = listener.accept()
    try:
        here: Any = job(link, *mine)
    except LockstepError as error:
        here = error
    there = twin.result()
    link.close()
    return here, there


def batch(seed: int, size: list[int]) -> tuple[Rows, Nuclei]:
    rng = np.random.default_rng(seed)
    num = len(size)
    rows = Rows(rng.permutation(num), rng.integers(0, 9000, num), rng.integers(-1, 150_000, num))
    return rows, Nuclei(np.array(size), rng.integers(0, 150_000, sum(size)), rng.random(sum(size)))


def assert_equal(a: Nuclei, b: Nuclei) -> None:
    for name in ("size", "token", "p"):
        assert np.array_equal(getattr(a, name), getattr(b, name))


@KINDS
@pytest.mark.parametrize(
    "sizes",
    [
        [(1, 1)],
        [(FRAME_BYTES, FRAME_BYTES)],
        [(FRAME_BYTES - 1, FRAME_BYTES + 1)],
        [(1, 40 * FRAME_BYTES + 7)],
        [(40 * FRAME_BYTES, 1)],
        [(5_000_000, 4_000_000), (8, 8), (1, 3 * FRAME_BYTES), (3 * FRAME_BYTES, 1)],
    ],
    ids=str,
)
def test_messages_of_any_two_sizes_arrive_whole(
    twin: Twin, kind: str, sizes: list[tuple[int, int]]
) -> None:
    assert together(twin, kind, swap_all, (1, 0, sizes), (1, 1, sizes)) == (0, 0)


@KINDS
def test_thousands_of_exchanges_of_random_sizes_stay_in_step(twin: Twin, kind: str) -> None:
    rng = np.random.default_rng(0)
    sizes = [
        (int(a), int(b)) for a, b in np.exp(rng.uniform(0, np.log(2 * FRAME_BYTES), (3000, 2)))
    ]
    assert together(twin, kind, swap_all, (2, 0, sizes), (2, 1, sizes)) == (0, 0)


@KINDS
def test_a_message_as_long_as_its_frame_s_number_is_not_mistaken(twin: Twin, kind: str) -> None:
    """A head that is half written must not pass for a whole one because two of its numbers are
    equal.
    """
    sizes = [(n, n) for n in range(1, 3000)]
    assert together(twin, kind, swap_all, (3, 0, sizes), (3, 1, sizes)) == (0, 0)


def test_a_frame_of_which_not_every_byte_is_visible_yet_is_not_taken() -> None:
    """Whatever part of the twin's stores a processor shows first: the frame counts when all of it
    is there.
    """
    size = SharedMemoryLink.SIZE
    with mmap.mmap(-1, size) as memory:
        with pytest.raises(LockstepError):
            SharedMemoryLink(memory, True, 0.001).swap(b"\x01")
        written = memory[:]
    stored = np.flatnonzero(np.frombuffer(written, np.uint8)).tolist()
    for subset in itertools.product((False, True), repeat=len(stored)):
        with mmap.mmap(-1, size) as memory:
            for at in itertools.compress(stored, subset):
                memory[at] = written[at]
            reader = SharedMemoryLink(memory, False, 0.001)
            if all(subset):
                assert reader.swap(b"y") == b"\x01"
            else:
                with pytest.raises(LockstepError):
                    reader.swap(b"y")


@KINDS
def test_each_side_gets_the_other_s_nuclei_bit_for_bit(twin: Twin, kind: str) -> None:
    sizes = [[1], [1] * 64, [3, 0, 2], [], [0, 0], [50_000, 1], [1, 151_936, 7]]
    steps = [(batch(n, size), batch(n + 100, list(reversed(size)))) for n, size in enumerate(sizes)]
    mine = [(rows, nuclei) for (rows, nuclei), _ in steps]
    theirs = [(rows, nuclei) for (rows, _), (_, nuclei) in steps]
    here, there = together(twin, kind, exchange_all, (mine,), (theirs,))
    for n, (received, sent) in enumerate(zip(here, there, strict=True)):
        assert_equal(received, theirs[n][1])
        assert_equal(sent, mine[n][1])


def without_row(rows: Rows) -> Rows:
    return Rows(rows.sequence[1:], rows.position[1:], rows.previous[1:])


def swapped(rows: Rows) -> Rows:
    order = np.r_[1, 0, 2 : len(rows.sequence)]
    return Rows(rows.sequence[order], rows.position[order], rows.previous[order])


def changed(name: str, row: int) -> Callable[[Rows], Rows]:
    def change(rows: Rows) -> Rows:
        values = getattr(rows, name).copy()
        values[row] += 1
        return replace(rows, **{name: values})

    return change


@KINDS
@pytest.mark.parametrize(
    ("fault", "here", "there"),
    [
        (
            without_row,
            "this engine is at 4 rows, its twin at 3",
            "this engine is at 3 rows, its twin at 4",
        ),
        (swapped, "row 0: sequence 10 here, 11 there", "row 0: sequence 11 here, 10 there"),
        (
            changed("sequence", 3),
            "row 3: sequence 13 here, 14 there",
            "row 3: sequence 14 here, 13 there",
        ),
        (
            changed("position", 2),
            "row 2: .* position 22 here, 23 there",
            "row 2: .* position 23 here, 22 there",
        ),
        (
            changed("previous", 1),
            "row 1: .* token 31 here, 32 there",
            "row 1: .* token 32 here, 31 there",
        ),
    ],
    ids=["row dropped", "rows swapped", "other sequence", "other position", "other previous token"],
)
def test_a_twin_at_another_place_is_an_error_on_both_sides(
    twin: Twin, kind: str, fault: Callable[[Rows], Rows], here: str, there: str
) -> None:
    rows = Rows(10 + np.arange(4), 20 + np.arange(4), 30 + np.arange(4))
    theirs = fault(rows)
    nuclei = batch(0, [2] * len(rows.sequence))[1], batch(1, [2] * len(theirs.sequence))[1]
    errors = together(twin, kind, exchange_all, ([(rows, nuclei[0])],), ([(theirs, nuclei[1])],))
    for error, message in zip(errors, (here, there), strict=True):
        with pytest.raises(LockstepError, match=message):
            raise error


@KINDS
def test_a_silent_twin_is_an_error_after_the_deadline(twin: Twin, kind: str) -> None:
    listener = Listener(kind, "127.0.0.1", 0.4)
    twin.start(listener.address, LONG, stay_silent)
    link = listener.accept()
    with pytest.raises(LockstepError, match=r"did not answer within 0\.4 s \(step_timeout\)"):
        link.swap(b"anybody there?")
    assert twin.result() is None
    link.close()


@KINDS
def test_what_is_to_be_done_meanwhile_is_done_before_the_twin_has_answered(
    twin: Twin, kind: str, tmp_path: Path
) -> None:
    """The twin answers only when it has been done."""
    listener = Listener(kind, "127.0.0.1", LONG)
    twin.start(listener.address, LONG, swap_when_there, tmp_path / "done")
    link = listener.accept()
    assert link.swap(b"early", (tmp_path / "done").touch) == b"late"
    assert twin.result() == b"early"
    link.close()


def swap_when_there(link: Link, file: Path) -> bytes:
    """Swap as soon as there is such a file."""
    while not file.exists():
        time.sleep(0.01)
    return link.swap(b"late")


@KINDS
def test_a_twin_that_stops_in_the_middle_of_a_long_message_is_an_error(
    twin: Twin, kind: str
) -> None:
    listener = Listener(kind, "127.0.0.1", LONG)
    twin.start(listener.address, 0.3, swap_all, 0, 1, [(1, 10 * FRAME_BYTES)])
    link = listener.accept()

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        link.swap(bytes(10 * FRAME_BYTES), stop)  # after the first of 10 frames
    assert isinstance(twin.result(), LockstepError)
    link.close()


def test_a_twin_that_dies_is_an_error_at_once_on_tcp() -> None:
    mortal = Twin()
    listener = Listener("tcp", "127.0.0.1", LONG)
    mortal.start(listener.address, LONG, swap_all, 0, 1, [(1, 1)] * 2)
    link = listener.accept()
    link.swap(b"x")
    mortal.end()
    with pytest.raises(LockstepError, match="connection to the other engine broke"):
        for _ in range(3):  # what it had sent before it died may still arrive
            link.swap(b"x")
    link.close()


def test_a_twin_that_never_comes_is_an_error_on_tcp() -> None:
    with pytest.raises(LockstepError, match=r"did not come within 0\.3 s \(step_timeout\)"):
        Listener("tcp", "127.0.0.1", 0.3).accept()


@pytest.mark.parametrize(
    "address",
    [
        Address("shm", "/proc/1/fd/987654", b"s"),
        Address("tcp", "127.0.0.1:9", b"s"),
        Address("tcp", "nowhere", b"s"),
    ],
    ids=lambda address: address.location,
)
def test_an_address_where_nobody_waits_is_an_error(address: Address) -> None:
    with pytest.raises(LockstepError, match=f"the other engine is not at {address.location}"):
        connect(address, 0.5)


def says_nothing(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address)


def says_rubbish(address: tuple[str, int]) -> socket.socket:
    stranger = socket.create_connection(address)
    stranger.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return stranger


def hangs_up(address: tuple[str, int]) -> socket.socket:
    stranger = socket.create_connection(address)
    stranger.close()
    return stranger


@pytest.mark.parametrize("stranger", [says_nothing, says_rubbish, hangs_up])
def test_a_stranger_does_not_take_the_twin_s_place(
    twin: Twin, stranger: Callable[[tuple[str, int]], socket.socket]
) -> None:
    """The stranger that says nothing is given a tenth of the time."""
    listener = Listener("tcp", "127.0.0.1", 30.0)
    host, port = listener.address.location.split(":")
    with stranger((host, int(port))):
        twin.start(listener.address, LONG, swap_all, 4, 1, [(9, 9)])
        link = listener.accept()
        assert swap_all(link, 4, 0, [(9, 9)]) == 0
    assert twin.result() == 0
    link.close()


def test_a_stranger_with_the_wrong_secret_is_refused_and_the_twin_is_not(twin: Twin) -> None:
    listener = Listener("tcp", "127.0.0.1", LONG)
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(listener.accept)
        with pytest.raises(LockstepError, match="the other engine is not at"):
            connect(replace(listener.address, secret=b"guessed"), LONG)
        twin.start(listener.address, LONG, swap_all, 5, 1, [(9, 9)])
        link = accepted.result()
    assert swap_all(link, 5, 0, [(9, 9)]) == 0
    assert twin.result() == 0
    link.close()


def test_a_slow_twin_is_given_the_whole_deadline_once_it_has_shown_who_it_is(twin: Twin) -> None:
    """The hand-shake's own deadline is short and must not stay on the link."""
    listener = Listener("tcp", "127.0.0.1", 20.0)
    twin.start(listener.address, LONG, swap_late, 2.5)
    link = listener.accept()
    assert link.swap(b"early") == b"late"
    assert twin.result() == b"early"
    link.close()


def swap_late(link: Link, seconds: float) -> bytes:
    time.sleep(seconds)
    return link.swap(b"late")


def test_the_port_is_open_on_loopback_only() -> None:
    listener = Listener("tcp", "127.0.0.1", 0.1)
    listening = [
        c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN
    ]
    port = int(listener.address.location.split(":")[1])
    assert [address.ip for address in listening if address.port == port] == ["127.0.0.1"]
    with pytest.raises(LockstepError):
        listener.accept()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


@KINDS
def test_nothing_is_left_behind_in_shared_memory(twin: Twin, kind: str) -> None:
    before = set(os.listdir("/dev/shm"))
    together(twin, kind, swap_all, (6, 0, [(9, 9)]), (6, 1, [(9, 9)]))
    assert comes_true(lambda: set(os.listdir("/dev/shm")) <= before)


def test_the_secret_of_a_listener_is_its_own() -> None:
    addresses = [Listener("shm", "", 1.0).address for _ in range(2)]
    assert len({address.secret for address in addresses}) == 2
    assert all(len(each.secret) >= 16 and Path(each.location).exists() for each in addresses)


def test_numbers_come_as_they_were_sent_and_of_another_size_than_expected_are_a_lockstep_error(
    twin: Twin,
) -> None:
    mine, theirs = np.array([0.1, 0.2], np.float32), np.array([3.0, np.nan], np.float32)
    here, there = together(twin, "shm", exchange_numbers, (mine, 2), (theirs, 2))
    assert here.tobytes() == theirs.tobytes() and there.tobytes() == mine.tobytes()
    here, _ = together(twin, "shm", exchange_numbers, (mine, 2), (theirs[:1], 2))
    assert isinstance(here, LockstepError) and "sent 4 bytes for 2 numbers of 4" in str(here)
