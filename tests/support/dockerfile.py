"""A Dockerfile as a list of instructions, and a .dockerignore as a question: what the tests and the
replay read.

Knows what our own files use: comments, continued lines, ARG, flags; no here-documents, no ONBUILD.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import ROOT


class Instruction(NamedTuple):
    """name: RUN, COPY, ...; flags: --mount=... -> "mount": "..."; text: the rest, variables as they
    are written.
    """

    name: str
    flags: dict[str, str]
    text: str

    @property
    def words(self) -> list[str]:
        """The text as a shell, or a JSON list, has it."""
        text = self.text.strip("[]").replace(",", " ") if self.text.startswith("[") else self.text
        return shlex.split(text)


def read(file: Path) -> list[Instruction]:
    """The instructions of a Dockerfile, in order."""
    lines = [
        line
        for line in file.read_text(encoding="utf-8").splitlines()
        if not line.lstrip().startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", "")
    return [_instruction(line) for line in joined.splitlines() if line.strip()]


def _instruction(line: str) -> Instruction:
    name, _, text = line.strip().partition(" ")
    flags = {}
    while found := re.match(r"--([a-z]+)=(\S+)\s+", text := text.lstrip()):
        flags[found[1]] = found[2]
        text = text[found.end() :]
    return Instruction(name, flags, text)


def stages(instructions: list[Instruction]) -> list[list[Instruction]]:
    """The stages, each from its FROM on; what comes before the first FROM belongs to none."""
    starts = [index for index, instruction in enumerate(instructions) if instruction.name == "FROM"]
    return [instructions[start:end] for start, end in zip(starts, [*starts[1:], None], strict=True)]


def arguments(instructions: list[Instruction]) -> dict[str, str]:
    """Name and default of every ARG that has one."""
    pairs = [
        instruction.text.partition("=") for instruction in instructions if instruction.name == "ARG"
    ]
    return {name: value for name, given, value in pairs if given}


def resolved(text: str, variables: Mapping[str, str]) -> str:
    """`text` with its ${NAME}s replaced; an unknown one is empty."""
    return re.sub(r"\$\{?(\w+)\}?", lambda found: variables.get(found[1], ""), text)


def lets_through(path: str, ignore: Path = ROOT / ".dockerignore") -> bool:
    """Whether a file, by its path from the context's root, is sent to the build: the last line that
    matches says.
    """
    parts = path.split("/")
    ways = [
        "/".join(parts[: count + 1]) for count in range(len(parts))
    ]  # a folder's rule is its files'
    sent = True
    for line in ignore.read_text(encoding="utf-8").splitlines():
        pattern = line.strip().removeprefix("!")
        if pattern and not line.startswith("#") and any(_matches(way, pattern) for way in ways):
            sent = line.startswith("!")
    return sent


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatchcase(path.split("/")[-1], pattern[3:])
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)
