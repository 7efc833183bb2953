"""What a pair remembers of its processes must not start anything itself."""

import subprocess
import sys

from tests.support.paths import ROOT


def test_remembering_no_engine_starts_no_cluster() -> None:
    """In a process of its own: another test's cluster may be in this one."""
    code = """
import ray
from engine.lockstep.processes import EngineProcesses
EngineProcesses().remember([])
print(ray.is_initialized())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "False"
