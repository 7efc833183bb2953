"""Where the project lies, for tests that start it as a user does."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
