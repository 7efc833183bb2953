"""A cluster of our own is given time to start."""

from __future__ import annotations

import subprocess
import sys

import pytest

TOO_SLOW = "The current node timed out during startup. This could happen for many reasons."
# In a process of its own: a cluster that others need may run here. No machine can be made slow
# enough at will, so Ray only says that it is.
SCRIPT = """
import sys
import ray
from engine.errors import EngineError
from engine.lockstep.cluster import own_cluster

starts = []

def refuse(**arguments):
    starts.append(arguments)
    raise RuntimeError(sys.argv[1])

ray.init = refuse
try:
    with own_cluster(1):
        pass
except EngineError as error:
    print(len(starts), error)
"""


@pytest.mark.parametrize(("reason", "num_starts"), [(TOO_SLOW, 4), ("no space left", 1)])
def test_ray_is_started_again_where_it_was_too_slow(reason: str, num_starts: int) -> None:
    command = [sys.executable, "-c", SCRIPT, reason]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{num_starts} Ray could not be started: {reason}"
