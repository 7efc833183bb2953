"""What the processes of a run did, as JSON lines in RUN/logs: a file a process, a record a line.

The driver's file has stages, parts, failures, and last the error that ended the run, with its
traceback; an engine's has what vLLM and Python's warnings say. What C++ and CUDA libraries write to
an engine's standard streams is beside it in a file .out. Nothing here may end a run: a log that
cannot be written is left out.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path

logger = logging.getLogger("xsample")
logger.addHandler(logging.NullHandler())
# Level by --verbose: of what is ours, and of vLLM.
_OURS = (logging.INFO, logging.INFO, logging.DEBUG)
_VLLM = (logging.WARNING, logging.INFO, logging.DEBUG)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """folder: RUN/logs; process: what it is, such as "driver" or "base-0"; verbose: 0 to 2."""

    folder: Path
    process: str
    verbose: int = 0


def log_event(
    message: str, level: int = logging.INFO, on_screen: bool = False, **fields: object
) -> None:
    """Write a record with these fields, which JSON knows. on_screen: the user has seen it
    already.
    """
    logger.log(level, message, extra={"fields": fields, "on_screen": on_screen})


def write_logs(config: LogConfig) -> None:
    """From now on this process writes its file, instead of another that it wrote before."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _File)]:
        root.removeHandler(handler)
        handler.close()
    with suppress(OSError):
        root.addHandler(_File(config))
    logger.setLevel(_OURS[config.verbose])
    logging.getLogger("vllm").setLevel(_VLLM[config.verbose])


def redirect_streams(config: LogConfig) -> None:
    """Let this process, a worker's, write its logs, and its standard streams beside them.

    On a host that does not see the run directory it does neither.
    """
    if not config.folder.parent.is_dir():
        return
    write_logs(config)
    logging.captureWarnings(True)
    with suppress(OSError):
        output = os.open(
            _path(config, ".out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666
        )
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(output, stream.fileno())
        os.close(output)


def remove_if_empty(config: LogConfig, pid: int) -> None:
    """Remove what a process that has ended would have written to its standard streams, had it said
    anything.
    """
    with suppress(OSError):
        for file in config.folder.glob(f"{config.process}-*-{pid}.out"):
            if not file.stat().st_size:
                file.unlink()


@contextmanager
def shown(show: Callable[[str], object], verbose: int) -> Iterator[None]:
    """Inside the block, `show` what is recorded too, if the user asked for it."""
    handler = _Shown(show)
    handler.setLevel(logging.CRITICAL + 1 if not verbose else _OURS[verbose])
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _File(logging.FileHandler):
    """Appends JSON lines; a full disk costs records and nothing else."""

    def __init__(self, config: LogConfig) -> None:
        config.folder.mkdir(exist_ok=True)
        if config.folder.is_symlink():
            raise OSError(f"{config.folder} is a link")
        super().__init__(_path(config, ".jsonl"), encoding="ascii", delay=True)
        self.setFormatter(_JsonLines(config.process))

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        return open(os.open(self.baseFilename, flags, 0o666), "a", encoding="ascii")

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # no file can be opened
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _JsonLines(logging.Formatter):
    """A record as one line of ASCII: nothing in it can end the line or reach a terminal."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class _Shown(logging.Handler):
    def __init__(self, show: Callable[[str], object]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "on_screen", False):
            return
        fields = (f"{name} {value}" for name, value in getattr(record, "fields", {}).items())
        self._show(", ".join([record.getMessage(), *fields]))


def _path(config: LogConfig, suffix: str) -> Path:
    host, started = (
        re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname()),
        time.strftime("%Y%m%d-%H%M%S"),
    )
    return config.folder / f"{config.process}-{host}-{started}-{os.getpid()}{suffix}"
