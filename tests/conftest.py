"""What all tests share: nothing reaches for the network, nobody's environment changes an
outcome.
"""

import os
import signal

import hypothesis

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
