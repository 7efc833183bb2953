"""Logs: a JSON line a record, whatever it holds; what belongs in files stays off the screen, and no
log ends a run.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.system.log import (
    LogConfig,
    log_event,
    logger,
    remove_if_empty,
    show_log,
    write_logs,
)
from tests.support.paths import ROOT
from xsample.cli.main import commands

ENGINE = """
import ctypes, logging, os, sys, warnings
from pathlib import Path
from engine.system.log import LogConfig, redirect_streams
redirect_streams(LogConfig(Path(sys.argv[1]) / "logs", "base-0", int(sys.argv[2])))
logging.getLogger("vllm.worker").info("vLLM's own words")
warnings.warn("a warning")
print("printed", flush=True)
ctypes.CDLL(None).write(2, b"from C\\n", 7)
"""


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    root, level, vllm = logging.getLogger(), logger.level, logging.getLogger("vllm").level
    handlers = list(root.handlers)
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    logger.setLevel(level)
    logging.getLogger("vllm").setLevel(vllm)


def lines(folder: Path, process: str) -> list[dict[str, Any]]:
    [file] = folder.glob(f"{process}-*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_record_has_its_time_level_process_message_and_fields(tmp_path: Path) -> None:
    write_logs(LogConfig(tmp_path / "logs", "driver"))
    log_event("a part is committed", trajectories=3)
    [line] = lines(tmp_path / "logs", "driver")
    assert (line["level"], line["process"], line["message"], line["trajectories"]) == (
        "INFO", "driver", "a part is committed", 3
    )  # fmt: skip
    assert line["time"].endswith("+00:00")


def test_whatever_a_message_holds_is_one_line_that_no_terminal_obeys(tmp_path: Path) -> None:
    write_logs(LogConfig(tmp_path / "logs", "driver"))
    log_event("the first")
    [file] = (tmp_path / "logs").iterdir()

    with file.open("rb") as written:

        @settings(deadline=None)
        @given(st.text())
        def is_one_line(text: str) -> None:
            written.seek(0, os.SEEK_END)
            log_event(text)
            line = written.read().decode("ascii")
            assert line.endswith("\n") and line[:-1].isprintable()
            assert json.loads(line)["message"] == text

        is_one_line()


def test_libraries_are_recorded_from_warnings_on_and_ours_in_detail_if_asked_for(
    tmp_path: Path,
) -> None:
    for verbose, expected in ((0, ["w"]), (1, ["i", "w"]), (2, ["d", "i", "w"])):
        write_logs(LogConfig(tmp_path / str(verbose), "driver", verbose))
        for level, text in ((logging.DEBUG, "d"), (logging.INFO, "i"), (logging.WARNING, "w")):
            logging.getLogger("vllm.engine").log(level, text)
        log_event("a lease begins", logging.DEBUG)
        found = [line["message"] for line in lines(tmp_path / str(verbose), "driver")]
        assert found == [*expected, *(["a lease begins"] if verbose == 2 else [])]


def test_the_screen_shows_records_only_if_asked_for_and_none_twice(tmp_path: Path) -> None:
    write_logs(LogConfig(tmp_path / "logs", "driver", 2))
    for verbose, expected in ((0, []), (1, ["done, n 1"]), (2, ["done, n 1", "detail"])):
        seen: list[str] = []
        with show_log(seen.append, verbose):
            log_event("done", n=1)
            log_event("detail", logging.DEBUG)
            log_event("seen already", on_screen=True)
        assert seen == expected


def test_an_engine_s_process_writes_a_log_and_what_libraries_print_beside_it(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, str(tmp_path), "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert [line["logger"] for line in lines(tmp_path / "logs", "base-0")] == [
        "vllm.worker",
        "py.warnings",
    ]
    [output] = (tmp_path / "logs").glob("base-0-*.out")
    assert output.read_text() == "printed\nfrom C\n"


def test_on_a_host_that_does_not_see_the_run_directory_nothing_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, str(folder), "0"], cwd=ROOT, capture_output=True, timeout=300
    )
    assert (done.returncode, folder.exists()) == (0, False)


def test_what_an_ended_engine_did_not_write_to_is_removed_and_no_file_of_another(
    tmp_path: Path,
) -> None:
    for name, text in (
        ("base-0-a-1.out", ""),
        ("base-0-a-2.out", ""),
        ("rl-0-a-1.out", "Segmentation fault"),
    ):
        (tmp_path / name).write_text(text)
    for process in ("base-0", "rl-0"):
        remove_if_empty(LogConfig(tmp_path, process), 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["base-0-a-2.out", "rl-0-a-1.out"]


FULL = """
import resource, sys
from pathlib import Path
from engine.system.log import LogConfig, log_event, write_logs
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
gone = Path(sys.argv[1]).parent / "gone"
write_logs(LogConfig(gone, "driver"))
gone.rmdir()
log_event("lost")
for folder in sys.argv[1:]:
    write_logs(LogConfig(Path(folder), "driver"))
    log_event("lost")
print("goes on")
"""


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "link").symlink_to("/proc")
    folders = [str(tmp_path / name) for name in ("file", "link", "full")]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("goes on\n", "", 0)


def test_the_error_that_ends_a_command_is_the_last_record_with_its_traceback(
    tmp_path: Path,
) -> None:
    write_logs(LogConfig(tmp_path / "logs", "driver"))
    log_event("the run begins")
    done = CliRunner().invoke(commands, ["verify", str(tmp_path / "none")])
    *_, last = lines(tmp_path / "logs", "driver")
    assert done.exit_code == 2
    assert done.stderr == f"xsample: {last['message']}\n"
    assert last["level"] == "ERROR"
    assert "RunDirectoryError" in last["traceback"]
