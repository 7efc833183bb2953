"""Links: how two samplers swap bytes, in frames and under a deadline.

Shared memory carries the frames between processes of one host, TCP between hosts. The `Listener` of
one side tells its `Address`; the other side connects to it. A twin that is silent or gone is a
LockstepError.
"""

from __future__ import annotations

import mmap
import os
import secrets
import socket
import struct
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge

from engine.errors import LockstepError

FRAME_BYTES = 1 << 16
"""Payload of one frame. The nuclei of 64 rows usually fit into one; flat ones take more frames."""

_SPIN_SECONDS = 0.002

Meanwhile = Callable[[], None]
"""Work to do until the twin's message arrives."""


class Link(ABC):
    """Swaps bytes with the twin.

    Messages go in frames, so that neither side ever waits for the other to drain a long message.

    Args:
        timeout: Seconds that the twin may stay silent.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def swap(self, message: bytes, meanwhile: Meanwhile | None = None) -> bytes:
        """Send a message and wait for the twin's.

        Args:
            message: The bytes to send.
            meanwhile: Work to do until the twin's message arrives.

        Returns:
            The twin's message.

        Raises:
            LockstepError: The twin stayed silent for the time-out, or is gone.
        """
        starts = range(0, len(message) or 1, FRAME_BYTES)
        frames = [message[start : start + FRAME_BYTES] for start in starts]
        self._send(len(message), frames[0])
        if meanwhile:
            meanwhile()
        total, received = self._receive()
        for n in range(1, -(-max(total, len(message)) // FRAME_BYTES)):
            self._send(len(message), frames[n] if n < len(frames) else b"")
            received += self._receive()[1]
        return received

    @abstractmethod
    def _send(self, total: int, frame: bytes) -> None:
        """Send a frame of a message of `total` bytes."""

    @abstractmethod
    def _receive(self) -> tuple[int, bytes]:
        """The bytes of the twin's whole message, and its next frame."""

    @abstractmethod
    def close(self) -> None:
        """Give the memory or the connection back."""

    def _silence_error(self) -> LockstepError:
        return LockstepError(
            f"the other engine did not answer within {self._timeout:g} s (step_timeout): it has"
            " stalled or died"
        )


class SharedMemoryLink(Link):
    """Two rings of two frames in anonymous shared memory.

    Each side writes one ring and spins on the other. Two frames per ring suffice: a side that
    writes frame n + 2 has read the twin's n + 1, which the twin wrote after it had read n. A frame
    carries its number and a checksum and is read again until both are right, so that the order in
    which a processor makes its stores visible does not matter.

    Args:
        memory: SIZE bytes that both sides have mapped.
        is_listener: Which of the two rings is this side's: exactly one side is the listener.
        timeout: Seconds that the twin may stay silent.
    """

    _HEAD = struct.Struct("<QQI")  # frame number, bytes of the whole message, bytes in this frame
    _CHECK = struct.Struct("<I")  # crc32 of the head and the frame
    _BODY = _HEAD.size + _CHECK.size
    _SLOT = _BODY + FRAME_BYTES
    SIZE = 4 * _SLOT

    def __init__(self, memory: mmap.mmap, is_listener: bool, timeout: float) -> None:
        super().__init__(timeout)
        self._memory, self._frame_number = memory, 0
        rings = (0, 2 * self._SLOT)
        self._write_offset, self._read_offset = rings if is_listener else rings[::-1]

    def _send(self, total: int, frame: bytes) -> None:
        self._frame_number += 1
        start = self._write_offset + (self._frame_number % 2) * self._SLOT
        body = start + self._BODY
        head = self._HEAD.pack(self._frame_number, total, len(frame))
        check = self._CHECK.pack(zlib.crc32(frame, zlib.crc32(head)))
        self._memory[body : body + len(frame)] = frame
        self._memory[start:body] = head + check

    def _receive(self) -> tuple[int, bytes]:
        start = self._read_offset + (self._frame_number % 2) * self._SLOT
        body = start + self._BODY
        started = time.monotonic()
        while True:
            for _ in range(100):
                head = self._memory[start : start + self._HEAD.size]
                number, total, size = self._HEAD.unpack(head)
                if number == self._frame_number and size <= FRAME_BYTES:
                    (check,) = self._CHECK.unpack_from(self._memory, start + self._HEAD.size)
                    frame = self._memory[body : body + size]
                    if zlib.crc32(frame, zlib.crc32(head)) == check:
                        return total, frame
            self._wait(time.monotonic() - started)

    def _wait(self, seconds_waited: float) -> None:
        if seconds_waited > self._timeout:
            raise self._silence_error()
        # At first yield: with fewer cores than engines the twin needs this one. Later sleep: the
        # twin may be prefilling.
        if seconds_waited < _SPIN_SECONDS:
            os.sched_yield()
        else:
            time.sleep(50e-6)

    def close(self) -> None:
        """Unmap the memory."""
        self._memory.close()


class TcpLink(Link):
    """One authenticated TCP connection without Nagle's delay.

    Frames are length-prefixed bytes; nothing is unpickled.

    Args:
        connection: The connection to the twin.
        timeout: Seconds that the twin may stay silent.
    """

    _HEAD = struct.Struct("<Q")

    def __init__(self, connection: Connection, timeout: float) -> None:
        super().__init__(timeout)
        self._connection = connection
        with socket.socket(fileno=os.dup(connection.fileno())) as sock:
            _set_timeout(sock, timeout)

    def _send(self, total: int, frame: bytes) -> None:
        with self._errors():
            self._connection.send_bytes(self._HEAD.pack(total) + frame)

    def _receive(self) -> tuple[int, bytes]:
        with self._errors():
            reply = self._connection.recv_bytes(FRAME_BYTES + self._HEAD.size)
        return self._HEAD.unpack_from(reply)[0], reply[self._HEAD.size :]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            raise self._silence_error() from None
        except (EOFError, OSError) as error:
            raise LockstepError(
                f"the connection to the other engine broke: {error or type(error).__name__}"
            ) from None

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener waits for its twin."""

    kind: str
    """"shm" or "tcp"."""
    location: str
    """A path for shared memory, host:port for TCP."""
    secret: bytes
    """Proof that a process that connects is the twin."""


class Listener:
    """The side that waits for its twin: it tells its `address` and then accepts the link.

    Args:
        kind: "shm" or "tcp".
        host: The address to listen on for "tcp"; loopback unless the pair spans hosts.
        timeout: Seconds to wait for the twin, and those that it may stay silent later.
    """

    def __init__(self, kind: str, host: str, timeout: float) -> None:
        self._timeout = timeout
        if kind == "shm":
            # Anonymous: nothing to unlink, whatever dies. The twin reaches it through /proc.
            self._memory = os.memfd_create("xsample")
            os.ftruncate(self._memory, SharedMemoryLink.SIZE)
            location = f"/proc/{os.getpid()}/fd/{self._memory}"
        else:
            self._server = socket.create_server((host, 0))
            location = f"{host}:{self._server.getsockname()[1]}"
        self.address = Address(kind, location, secrets.token_bytes(32))

    def accept(self) -> Link:
        """Wait for the twin.

        Returns:
            The link to it.

        Raises:
            LockstepError: The twin did not come in time.
        """
        if self.address.kind == "shm":
            # The descriptor stays open: the twin comes through it.
            return SharedMemoryLink(
                mmap.mmap(self._memory, SharedMemoryLink.SIZE), True, self._timeout
            )
        with self._server:
            deadline = time.monotonic() + self._timeout
            while (left := deadline - time.monotonic()) > 0:
                self._server.settimeout(left)
                try:
                    # A tenth: a stranger who connects and stays silent must not keep the twin out.
                    connection = _connection(self._server.accept()[0], self._timeout / 10)
                    deliver_challenge(connection, self.address.secret)
                    answer_challenge(connection, self.address.secret)
                    return TcpLink(connection, self._timeout)
                except (OSError, EOFError, AuthenticationError):
                    continue  # a stranger, or nobody: go on waiting for the twin
        raise LockstepError(
            f"the other engine did not come within {self._timeout:g} s (step_timeout)"
        )


def connect(address: Address, timeout: float) -> Link:
    """Connect to the listener at an address.

    Args:
        address: Where the twin waits.
        timeout: Seconds that it may stay silent, now and later.

    Raises:
        LockstepError: The twin is not there.
    """
    try:
        if address.kind == "shm":
            with open(address.location, "r+b") as file:
                return SharedMemoryLink(
                    mmap.mmap(file.fileno(), SharedMemoryLink.SIZE), False, timeout
                )
        host, port = address.location.rsplit(":", 1)
        connection = _connection(socket.create_connection((host, int(port)), timeout), timeout)
        answer_challenge(connection, address.secret)
        deliver_challenge(connection, address.secret)
        return TcpLink(connection, timeout)
    except (OSError, ValueError, EOFError, AuthenticationError) as error:
        raise LockstepError(
            f"the other engine is not at {address.location} ({address.kind}): {error}"
        ) from None


def _connection(sock: socket.socket, timeout: float) -> Connection:
    """A message connection over `sock`, without Nagle's delay and with a time-out."""
    sock.setblocking(True)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _set_timeout(sock, timeout)
    return Connection(sock.detach())


def _set_timeout(sock: socket.socket, timeout: float) -> None:
    """End each read and write of `sock` after `timeout` seconds, also of copies of it."""
    time_value = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, time_value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, time_value)
