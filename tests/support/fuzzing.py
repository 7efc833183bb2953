"""What the fuzzing tests share: how many cases, hostile values, and the judge of a case.

A case is good when it ends in success or in one line of ours, shows no control character, writes
nowhere but into its own folder, runs nothing, connects to nobody and does not hang. In the long
form it takes little memory too.
XSAMPLE_FUZZ_CASES=10000 is the long form: so many cases of each target, over its tests.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from engine.errors import XsampleError
from xsample.cli.main import commands

NUM_CASES = int(os.environ.get("XSAMPLE_FUZZ_CASES", "0"))
MEMORY_MIB = 512  # in the long form: other tests may be large when one case is not
SECONDS = 300.0  # a case takes some hundredths; one that takes so long hangs
_EXIT_CODES = range(5)
_LONGEST_MESSAGE = 30_000  # some quote a name of the user's own whole
_ASIDES = ("xsample: note: ", "xsample: warning: ")
T = TypeVar("T")
quiet = pytest.mark.filterwarnings(
    "ignore:Generating overly large repr"
)  # of the value that a case failed with


class Hang(BaseException):
    """A case took too long; no `except Exception` on the way takes it."""


def cases(short: int, share: float) -> settings:
    """Settings of a fuzzing test: `short` cases, always the same ones, or its share of those of its
    target.
    """
    return settings(
        max_examples=round(NUM_CASES * share) or short,
        deadline=None,
        database=None,
        derandomize=not NUM_CASES,
        suppress_health_check=list(HealthCheck),
    )


# Hostile values

HOSTILE = [
    "\x1b[2J\x1b[31m", "\x1b]0;title\x07", "\x9b31m", "\u202e", "\u2028", "\x00", "\r", "\n",
    "a\nb", "\ud800", "\ufeff", "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>", "javascript:alert(1)", "../../escaped", "/etc/passwd",
    "a/../../b", "$\\frac{1}{0}$", "$", "\\", "\\boxed{", "=cmd|' /C calc'!A0", "@SUM(1)",
    "{{7*7}}", "{question}", "{0.__class__}", "[bold red]x[/]", "[/]", "%s%n",
    "'; DROP TABLE x; --", '"', "*", "~", "~nobody/x", "-", "--help", "NaN", "null", "1e999", "0x1",
    "1_000", "\U0001f4a9", "\u0661\u0662",
]  # fmt: skip
_LONG = {f"{piece} many times": 20_000 * piece for piece in ("a", "(", "\u0301", "\n", "9")}
_odd = st.sampled_from([*HOSTILE, *_LONG]).map(lambda text: _LONG.get(text, text))
texts = _odd | st.text(max_size=12) | st.tuples(_odd, st.text(max_size=3)).map("".join)
numbers = (
    st.sampled_from(
        [0, -1, 1, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**12]
    )
    | st.sampled_from([10**400, 10**4000])
    | st.integers()
    | st.floats()
)
scalars = st.none() | st.booleans() | numbers | texts
depths = st.sampled_from([1, 10, 100, 400, 1_200])
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with some bytes changed, cut off, put in or doubled."""
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(changed)))
        how = draw(st.sampled_from(["flip", "cut", "insert", "double", "zero"]))
        if how == "flip" and at < len(changed):
            changed[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del changed[at : at + draw(st.sampled_from([1, 8, len(content)]))]
        elif how == "insert":
            changed[at:at] = draw(st.binary(max_size=20))
        elif how == "double":
            changed[at:at] = changed[at : at + 64]
        else:
            changed[at : at + 16] = bytes(len(changed[at : at + 16]))
    return bytes(changed)


@st.composite
def altered(draw: st.DrawFn, value: Any, replacement: st.SearchStrategy[Any] = values) -> Any:
    """A JSON value with one of its parts, at any depth, replaced, left out or doubled."""
    inside = isinstance(value, (dict, list)) and len(value) > 0
    if not inside or draw(st.integers(0, 4)) == 0:
        return draw(replacement)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    copy = value.copy()
    how = draw(st.sampled_from(["alter", "alter", "alter", "remove", "add"]))
    if how == "remove":
        del copy[key]
    elif how == "add":
        name = draw(texts)
        copy = (
            {**copy, name: draw(replacement)}
            if isinstance(copy, dict)
            else [*copy, draw(replacement)]
        )
    else:
        copy[key] = draw(altered(copy[key], replacement))
    return copy


# The judge

_watched: list[str] | None = None
_own: tuple[str, ...] = ()
_CHANGES = {
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
}
_NEVER = {
    "socket.connect",
    "socket.getaddrinfo",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "pickle.find_class",
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_MARK = re.compile(
    r".*/xsample-[a-z0-9_]{8}/\.session"
)  # of other sessions: opened to see whether it is locked


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in _NEVER:
        _watched.append(f"{event} {args!r:.200}")
    elif event == "open" and isinstance(args[0], (str, bytes)) and (args[2] or 0) & _WRITING:
        _note_write(event, args[0])
    elif event in _CHANGES:
        relative_to = [
            arg for arg in args[1:] if isinstance(arg, int) and arg >= 0
        ]  # an open folder: of shutil.rmtree
        for path in args[: 2 if event in ("os.rename", "os.link") else 1]:
            if not relative_to:
                _note_write(event, path)


def _note_write(event: str, path: Any) -> None:
    assert _watched is not None, "only while a case is watched"
    where = (
        os.path.abspath(os.fsdecode(path))
        if isinstance(path, (str, bytes, os.PathLike))
        else repr(path)
    )
    is_look = event == "open" and _MARK.fullmatch(where)
    if not where.startswith(_own) and "__pycache__" not in where and not is_look:
        _watched.append(f"{event} {where!r}")


sys.addaudithook(_audit)


@contextmanager
def watched(own: Path) -> Iterator[None]:
    """The block writes into `own` alone, runs nothing, connects to nobody, and comes to its end."""
    global _watched, _own
    temporary = own / "temporary"
    temporary.mkdir(exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(temporary)
    start_kib = _restart_peak()
    _watched, _own = [], (str(own.resolve()), str(own), "/dev/null", "/dev/tty")
    try:
        with _alarm(SECONDS):
            yield
    finally:
        seen, _watched = _watched, None
        tempfile.tempdir = before
    assert seen == [], seen
    grown = (_peak_kib() - start_kib) >> 10
    assert not NUM_CASES or grown <= MEMORY_MIB, f"took {grown} MiB"
    left = [name for name in os.listdir(temporary) if name.startswith("xsample")]
    assert left == [], left


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def end(number: int, frame: FrameType | None) -> NoReturn:
        raise Hang(f"still going after {seconds} s")

    previous = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _restart_peak() -> int:
    """Begin to look for the peak anew; what is taken now, in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak_kib()


def _peak_kib() -> int:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


def judged(call: Callable[[], T], own: Path) -> T | None:
    """What `call` returns; None where it raised an error of ours (whose message the command shows
    on one line).
    """
    with watched(own):
        try:
            return call()
        except XsampleError as error:
            assert 0 < len(str(error)) < _LONGEST_MESSAGE, f"{len(str(error))}: {error!s:.200}"
            return None
        except (
            Exception
        ) as error:  # a bug: in few words, for its traceback may be thousands of frames deep
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise AssertionError(
                f"{type(error).__name__}: {error!s:.200} ({at.filename}:{at.lineno})"
            ) from None


def run(args: list[str], own: Path) -> Result:
    """An `xsample` command in this process, judged; `own` is the folder that it may write into."""
    with watched(own):
        done = CliRunner().invoke(commands, args, catch_exceptions=False)
    shown = f"{args}\n{done.output}"
    assert done.exit_code in _EXIT_CODES, shown
    assert "This is a bug" not in done.output and "Traceback" not in done.output, shown
    assert all(char.isprintable() or char in "\n\t" for char in done.output), ascii(shown)
    if done.exit_code and not (done.exit_code == 1 and args[0] == "verify" and done.stdout):
        _assert_ends_in_one_line(done.stderr, shown)
    return done


def _assert_ends_in_one_line(stderr: str, shown: str) -> None:
    lines = [line for line in stderr.splitlines() if line.startswith(("xsample: ", "Error: "))]
    errors = [line for line in lines if not line.startswith(_ASIDES)]
    assert len(errors) == 1 and stderr.endswith(errors[0] + "\n"), shown
