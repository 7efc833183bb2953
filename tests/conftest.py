"""What all tests share: nothing reaches for the network, nobody's environment changes an outcome,
and of two processes that share the tests one has all that start engines.
"""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
for name in ("XSAMPLE_DEBUG", "RAY_ADDRESS", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(name, None)
# A background job of a shell ignores Ctrl-C, one under nohup the loss of its terminal, and what
# they start does too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# On a busy machine examples take as long as they take.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

# These start engines or whole runs, which use both cores and keep one pair between them.
WITH_ENGINES = (
    "engine/lockstep", "engine/run", "evaluators/tasks/test_task_run.py", "gpu", "v2", "xsample",
    *(f"project/test_{name}.py" for name in ("docker", "hostile", "pages", "slurm")),
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that start engines into one group, for `make test`."""
    for item in items:
        if item.path.relative_to(Path(__file__).parent).as_posix().startswith(WITH_ENGINES):
            item.add_marker(pytest.mark.xdist_group("engines"))
