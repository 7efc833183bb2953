"""What all tests share: nothing reaches for the network, nobody's environment changes an outcome."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
for name in ("XSAMPLE_DEBUG", "RAY_ADDRESS", "COLUMNS", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(name, None)
