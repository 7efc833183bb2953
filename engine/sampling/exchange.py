"""The exchange between the two samplers of a pair: one message each way, once a step.

A link swaps bytes under a deadline. `exchange` packs rows and nuclei into them and checks that the
twin is at the same rows. A twin that is elsewhere, silent or gone is a LockstepError, never a
guess.

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
    """Where each row of a batch stands.

    Every array is [B].
    """

    sequence: Ints
    """Index of its sequence in the phase."""
    position: Ints
    """Position in the response that is decided next."""
    previous: Ints
    """Token before that position; -1 where there is none yet."""


def exchange(link: Link, rows: Rows, mine: Nuclei, meanwhile: Meanwhile | None = None) -> Nuclei:
    """Swap nuclei of the same rows with the twin.

    Args:
        link: The link to the twin.
        rows: The rows that this side is at.
        mine: This side's nuclei of them.
        meanwhile: Work to do until the twin's message arrives; the engines seldom come to the
            exchange at the same time.

    Returns:
        The twin's nuclei of the rows.

    Raises:
        LockstepError: The twin's rows differ in number, order, sequence, position or previous
            token.
    """
    my_rows = np.array((rows.sequence, rows.position, rows.previous))
    body = (array.tobytes() for array in (my_rows, mine.size, mine.token, mine.p))
    message = link.swap(b"".join((struct.pack("<q", my_rows.shape[1]), *body)), meanwhile)
    (num_rows,) = struct.unpack_from("<q", message)
    if num_rows != my_rows.shape[1]:
        raise LockstepError(f"this engine is at {my_rows.shape[1]} rows, its twin at {num_rows}")
    head = np.frombuffer(message, np.int64, 4 * num_rows, 8).reshape(4, num_rows)
    if not np.array_equal(head[:3], my_rows):
        raise LockstepError(_first_difference(my_rows, head[:3]))
    size = head[3]
    num_entries, offset = int(size.sum()), 8 + 32 * num_rows
    token = np.frombuffer(message, np.int64, num_entries, offset)
    p = np.frombuffer(message, np.float64, num_entries, offset + 8 * num_entries)
    return Nuclei(size, token, p)


def exchange_numbers(link: Link, mine: npt.NDArray[Number], num_theirs: int) -> npt.NDArray[Number]:
    """Swap arrays of one type with the twin, after an `exchange` of the same step.

    Args:
        link: The link to the twin.
        mine: This side's numbers.
        num_theirs: How many numbers the twin sends.

    Returns:
        The twin's numbers, flat.

    Raises:
        LockstepError: The twin sent another number of them.
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
