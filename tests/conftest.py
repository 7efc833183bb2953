"""What all tests share: nothing reaches for the network, nobody's environment changes an outcome,
and several processes can share them.
"""

import os
import signal
from typing import Any

import hypothesis
import pytest

from tests.support.order import place, scope

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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For several processes, as `make test` has them: who gets what."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scope(nodeid)

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests, for one process as for several."""
    items.sort(key=lambda item: place(item.nodeid))
