"""The exchange between the two samplers of a pair: one message out, the twin's message in, once a
step.

Two links carry it: shared memory between processes of one host, TCP between hosts. A link swaps
frames of bytes under a deadline; `exchange` puts rows and nuclei into them and checks that the twin
is at the same rows. A twin that is elsewhere, silent or gone is a LockstepError, never a guess.

Dimensions: B rows, N entries of nuclei.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engine.arrays import Ints
from engine.errors import LockstepError
from engine.sampling.distribution import Nuclei
from engine.sampling.link import Link, Meanwhile

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Rows:
    """Where each row of a batch stands: sequence, position, and the token before it (-1: none yet),
    each [B].
    """

    sequence: Ints
    position: Ints
    previous: Ints


def exchange(link: Link, rows: Rows, mine: Nuclei, meanwhile: Meanwhile | None = None) -> Nuclei:
    """Send this side's nuclei of `rows`, return the twin's nuclei of the same rows.

    meanwhile: what can be done until they are there; the engines seldom come to one place at the
    same time. Raises LockstepError when the twin's rows differ in number, order, sequence, position
    or previous token.
    """
    where = np.array((rows.sequence, rows.position, rows.previous))
    body = (array.tobytes() for array in (where, mine.size, mine.token, mine.p))
    theirs = link.swap(b"".join((struct.pack("<q", where.shape[1]), *body)), meanwhile)
    (num_rows,) = struct.unpack_from("<q", theirs)
    if num_rows != where.shape[1]:
        raise LockstepError(f"this engine is at {where.shape[1]} rows, its twin at {num_rows}")
    head = np.frombuffer(theirs, np.int64, 4 * num_rows, 8).reshape(4, num_rows)
    if not np.array_equal(head[:3], where):
        raise LockstepError(_first_difference(where, head[:3]))
    size = head[3]
    num_entries, at = int(size.sum()), 8 + 32 * num_rows
    token = np.frombuffer(theirs, np.int64, num_entries, at)
    return Nuclei(size, token, np.frombuffer(theirs, np.float64, num_entries, at + 8 * num_entries))


def exchange_numbers(link: Link, mine: npt.NDArray[Number], num_theirs: int) -> npt.NDArray[Number]:
    """Send an array right after an `exchange`, return the twin's of the same type, flat.

    Raises LockstepError unless it has `num_theirs` numbers.
    """
    theirs = link.swap(mine.tobytes())
    if len(theirs) != num_theirs * mine.itemsize:
        raise LockstepError(
            f"the other engine sent {len(theirs)} bytes for {num_theirs} numbers of {mine.itemsize}"
        )
    return np.frombuffer(theirs, mine.dtype)


def _first_difference(mine: Ints, theirs: Ints) -> str:
    row = int(np.flatnonzero((mine != theirs).any(0))[0])
    names = ("sequence", "position", "previous token")
    parts = [
        f"{name} {a} here, {b} there"
        for name, a, b in zip(names, mine[:, row], theirs[:, row], strict=True)
    ]
    return f"the engines are not at the same place in row {row}: {'; '.join(parts)}"
