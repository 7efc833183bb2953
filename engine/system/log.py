"""The logs of a run: one file of JSON lines per process in RUN/logs, one record per line.

The driver's file has the stages, parts and failures of the run, and as its last record the error
that ended the run, with a traceback. An engine's file has the records of vLLM and the warnings of
Python; a file `.out` beside it has the output of C++ and CUDA libraries to the standard streams.
Nothing here may end a run: a log that cannot be written is left out.
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
# The level of our records and of vLLM's, by --verbose (0, 1, 2).
_OUR_LEVELS = (logging.INFO, logging.INFO, logging.DEBUG)
_VLLM_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Where and how much a process logs."""

    folder: Path
    """RUN/logs."""
    process: str
    """The role of the process, such as "driver" or "base-1"."""
    verbose: int = 0
    """0 to 2, see the setting of this name."""


def log_event(
    message: str, level: int = logging.INFO, on_screen: bool = False, **fields: object
) -> None:
    """Write a record.

    Args:
        message: What happened.
        level: A level of the logging module.
        on_screen: The user has seen it already, so `show_log` leaves it out.
        **fields: Values of the record, of types that JSON has.
    """
    logger.log(level, message, extra={"fields": fields, "on_screen": on_screen})


def write_logs(config: LogConfig) -> None:
    """Let this process write its log from now on; a log that it wrote before is closed."""
    close_logs()
    with suppress(OSError):
        logging.getLogger().addHandler(_File(config))
    logger.setLevel(_OUR_LEVELS[config.verbose])
    logging.getLogger("vllm").setLevel(_VLLM_LEVELS[config.verbose])


def close_logs() -> None:
    """Close the log of this process, and leave logging as a library leaves it."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _File)]:
        root.removeHandler(handler)
        handler.close()
    for name in (logger.name, "vllm"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def redirect_streams(config: LogConfig) -> None:
    """Let this process, which hosts an engine, write its log, and its standard streams beside it.

    Does nothing on a host that does not see the run directory.
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
    """Remove the `.out` file of a process that has ended, if it has written nothing.

    Args:
        config: What the process logged with.
        pid: Its process id.
    """
    with suppress(OSError):
        for file in config.folder.glob(f"{config.process}-*-{pid}.out"):
            if not file.stat().st_size:
                file.unlink()


@contextmanager
def show_log(show: Callable[[str], object], verbose: int) -> Iterator[None]:
    """Show the records of this process to the user during the block, if the user asked for them.

    Args:
        show: Takes the text of each record.
        verbose: The setting; 0 shows nothing.
    """
    handler = _ShowHandler(show)
    handler.setLevel(_OUR_LEVELS[verbose] if verbose else logging.CRITICAL + 1)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _File(logging.FileHandler):
    """Appends JSON lines; what a full disk refuses is lost, and nothing else happens."""

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
        with suppress(Exception):  # the file cannot be opened
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _JsonLines(logging.Formatter):
    """One line of ASCII per record: no text in it can end the line or control a terminal."""

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


class _ShowHandler(logging.Handler):
    """Hands the text of records on, but for those that the user has seen already."""

    def __init__(self, show: Callable[[str], object]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "on_screen", False):
            return
        fields = (f"{name} {value}" for name, value in getattr(record, "fields", {}).items())
        self._show(", ".join([record.getMessage(), *fields]))


def _path(config: LogConfig, suffix: str) -> Path:
    host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())
    now = time.strftime("%Y%m%d-%H%M%S")
    return config.folder / f"{config.process}-{host}-{now}-{os.getpid()}{suffix}"
