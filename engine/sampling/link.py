"""Links: how two samplers swap bytes, in frames and under a deadline.

Shared memory carries them between processes of one host, TCP between hosts. A twin that is
silent or gone is a LockstepError.
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

# Payload of one frame, bytes. A batch of 64 rows usually fits into one; a nucleus that does not
# takes more frames.
FRAME = 1 << 16
_SPIN_SECONDS = 0.002

Meanwhile = Callable[[], None]


class Link(ABC):
    """Swaps bytes with the twin, in frames: neither side ever waits for the other to drain a long
    message.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout

    def swap(self, message: bytes, meanwhile: Meanwhile | None = None) -> bytes:
        """Send `message`, return the twin's. Raises LockstepError when it stays silent for
        `timeout` seconds.
        """
        frames = [message[at : at + FRAME] for at in range(0, len(message) or 1, FRAME)]
        self._send(len(message), frames[0])
        if meanwhile:
            meanwhile()
        total, received = self._receive()
        for n in range(1, -(-max(total, len(message)) // FRAME)):
            self._send(len(message), frames[n] if n < len(frames) else b"")
            received += self._receive()[1]
        return received

    @abstractmethod
    def _send(self, total: int, frame: bytes) -> None:
        """Send a frame of a message of `total` bytes."""

    @abstractmethod
    def _receive(self) -> tuple[int, bytes]:
        """The twin's frame, and how many bytes its message has."""

    @abstractmethod
    def close(self) -> None: ...

    def _silence(self) -> LockstepError:
        return LockstepError(
            f"the other engine did not answer within {self._timeout:g} s (step_timeout): it has"
            " stalled or died"
        )


class SharedMemoryLink(Link):
    """Two rings of two frames in anonymous shared memory; each side writes one ring and spins on
    the other.

    Two frames a ring suffice: a side that writes frame n + 2 has read the twin's n + 1, which the
    twin wrote after it had read n. A frame carries its number and a checksum and is read again
    until both are right, so it does not matter in which order a processor makes its stores visible.
    """

    _HEAD = struct.Struct("<QQI")  # frame number, bytes of the whole message, bytes in this frame
    _CHECK = struct.Struct("<I")  # crc32 of the head and the frame
    _BODY = _HEAD.size + _CHECK.size
    _SLOT = _BODY + FRAME
    SIZE = 4 * _SLOT

    def __init__(self, memory: mmap.mmap, opened: bool, timeout: float) -> None:
        super().__init__(timeout)
        self._memory, self._number = memory, 0
        self._write_at, self._read_at = (0, 2 * self._SLOT) if opened else (2 * self._SLOT, 0)

    def _send(self, total: int, frame: bytes) -> None:
        self._number += 1
        at = self._write_at + (self._number % 2) * self._SLOT
        head = self._HEAD.pack(self._number, total, len(frame))
        self._memory[at + self._BODY : at + self._BODY + len(frame)] = frame
        self._memory[at : at + self._BODY] = head + self._CHECK.pack(
            zlib.crc32(frame, zlib.crc32(head))
        )

    def _receive(self) -> tuple[int, bytes]:
        at = self._read_at + (self._number % 2) * self._SLOT
        started = time.monotonic()
        while True:
            for _ in range(100):
                head = self._memory[at : at + self._HEAD.size]
                number, total, size = self._HEAD.unpack(head)
                if number == self._number and size <= FRAME:
                    (check,) = self._CHECK.unpack_from(self._memory, at + self._HEAD.size)
                    frame = self._memory[at + self._BODY : at + self._BODY + size]
                    if zlib.crc32(frame, zlib.crc32(head)) == check:
                        return total, frame
            self._wait(time.monotonic() - started)

    def _wait(self, waited: float) -> None:
        if waited > self._timeout:
            raise self._silence()
        # Yield first: with fewer cores than engines the twin needs this one. Later sleep: it may be
        # prefilling.
        if waited < _SPIN_SECONDS:
            os.sched_yield()
        else:
            time.sleep(50e-6)

    def close(self) -> None:
        self._memory.close()


class TcpLink(Link):
    """One authenticated TCP connection, Nagle off. Frames are length-prefixed bytes; nothing is
    unpickled.
    """

    _HEAD = struct.Struct("<Q")

    def __init__(self, connection: Connection, timeout: float) -> None:
        super().__init__(timeout)
        self._connection = connection
        with socket.socket(fileno=os.dup(connection.fileno())) as sock:
            _limit(sock, timeout)

    def _send(self, total: int, frame: bytes) -> None:
        with self._errors():
            self._connection.send_bytes(self._HEAD.pack(total) + frame)

    def _receive(self) -> tuple[int, bytes]:
        with self._errors():
            reply = self._connection.recv_bytes(FRAME + self._HEAD.size)
        return self._HEAD.unpack_from(reply)[0], reply[self._HEAD.size :]

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except BlockingIOError:
            raise self._silence() from None
        except (EOFError, OSError) as error:
            raise LockstepError(
                f"the connection to the other engine broke: {error or type(error).__name__}"
            ) from None

    def close(self) -> None:
        self._connection.close()


@dataclass(frozen=True, slots=True)
class Address:
    """Where the twin's sampler waits: kind "shm" or "tcp", an address, and a secret that proves who
    comes.
    """

    kind: str
    address: str
    secret: bytes


class Listener:
    """The side that waits: `meeting` tells the twin where to go, `accept` returns the link once it
    is there.

    host: the address to listen on for "tcp"; loopback unless the pair spans hosts.
    """

    def __init__(self, kind: str, host: str, timeout: float) -> None:
        self._timeout = timeout
        self._secret = secrets.token_bytes(32)
        if kind == "shm":
            # Anonymous: nothing to unlink, whatever dies. The twin reaches it through /proc.
            self._memory = os.memfd_create("xsample")
            os.ftruncate(self._memory, SharedMemoryLink.SIZE)
            self.meeting = Address(kind, f"/proc/{os.getpid()}/fd/{self._memory}", self._secret)
        else:
            self._server = socket.create_server((host, 0))
            self.meeting = Address(kind, f"{host}:{self._server.getsockname()[1]}", self._secret)

    def accept(self) -> Link:
        """Wait for the twin. Raises LockstepError when it does not come in time."""
        if self.meeting.kind == "shm":
            # The descriptor stays open: the twin comes through it.
            return SharedMemoryLink(
                mmap.mmap(self._memory, SharedMemoryLink.SIZE), True, self._timeout
            )
        with self._server:
            deadline = time.monotonic() + self._timeout
            while (left := deadline - time.monotonic()) > 0:
                self._server.settimeout(left)
                try:
                    # A tenth: somebody who connects and says nothing must not keep the twin out.
                    connection = _connection(self._server.accept()[0], self._timeout / 10)
                    deliver_challenge(connection, self._secret)
                    answer_challenge(connection, self._secret)
                    return TcpLink(connection, self._timeout)
                except (OSError, EOFError, AuthenticationError):
                    continue  # a stranger, or nobody: go on waiting for the twin
        raise LockstepError(
            f"the other engine did not come within {self._timeout:g} s (step_timeout)"
        )


def connect(meeting: Address, timeout: float) -> Link:
    """Go to where the twin waits. Raises LockstepError when it is not there."""
    try:
        if meeting.kind == "shm":
            with open(meeting.address, "r+b") as file:
                return SharedMemoryLink(
                    mmap.mmap(file.fileno(), SharedMemoryLink.SIZE), False, timeout
                )
        host, port = meeting.address.rsplit(":", 1)
        connection = _connection(socket.create_connection((host, int(port)), timeout), timeout)
        answer_challenge(connection, meeting.secret)
        deliver_challenge(connection, meeting.secret)
        return TcpLink(connection, timeout)
    except (OSError, ValueError, EOFError, AuthenticationError) as error:
        raise LockstepError(
            f"the other engine is not at {meeting.address} ({meeting.kind}): {error}"
        ) from None


def _connection(sock: socket.socket, timeout: float) -> Connection:
    """A message connection over `sock`, without Nagle's delay, whose reads and writes end after
    `timeout` seconds.
    """
    sock.setblocking(True)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _limit(sock, timeout)
    return Connection(sock.detach())


def _limit(sock: socket.socket, timeout: float) -> None:
    """End each read and write of `sock` after `timeout` seconds."""
    limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
