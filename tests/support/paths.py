"""Where the project lies, for tests that start it as a user does or read its sources."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = (
    "engine", "evaluators", "xsample", "recipes", "benchmarks", "docker", "docs", "examples",
    "tests",
)  # fmt: skip
SOURCES = sorted(file for folder in FOLDERS for file in (ROOT / folder).rglob("*.py"))
PACKAGES = ("engine", "evaluators", "xsample")
SHIPPED = [file for file in SOURCES if file.relative_to(ROOT).parts[0] in PACKAGES]
TESTS = [file for file in SOURCES if file.relative_to(ROOT).parts[0] == "tests"]
