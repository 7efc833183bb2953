"""All that is to be measured on a GPU, in one go of a few minutes: what is done stays done.

    python -m benchmarks.gpu [--device cuda|cpu] [--folder .bench/gpu] [--seconds 480] [--rehearse]

Every step is a benchmark in a process of its own, which writes its result as soon as it has it. A
step whose result is there is not done again, so the same command goes on after whatever ended it.
A step that fails, or takes too long, leaves its log and does not keep the others from running.
`--rehearse` takes models of a thousandth of the size, to try the whole on a CPU. At the end, and
whenever it is interrupted, the results are collected into one file.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_LOG_LINES = 15  # of a step that failed, on the screen
_CLOSING_SECONDS = 30
_LEAST_SECONDS = 20  # what is left must be worth a start


@dataclass(frozen=True)
class Step:
    """A benchmark with its arguments, and how long it may take.

    command: module and arguments; --device and --json are added. environment: variables to set.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)


def steps(rehearse: bool) -> tuple[Step, ...]:
    """What is measured, the surest first."""
    small, large = ("1m", "1m") if rehearse else ("500m", "7b")
    few = ("--rounds", "1" if rehearse else "3")
    paired = [
        Step(
            f"paired-{model}-{slots}",
            ("benchmarks.paired", "--model", model, "--slots", str(slots), "--length", "32", *few),
            seconds=240,
        )
        for model in dict.fromkeys((small, large))
        for slots in ((4, 8) if rehearse else (64, 256))
    ]
    floor = tuple(
        Step(
            f"noise-floor-{dtype}-{runner}",
            ("benchmarks.noise_floor", "--dtype", dtype),
            seconds=120,
            environment={"VLLM_USE_V2_MODEL_RUNNER": number},
        )
        for dtype, runner, number in (("bfloat16", "v2", "1"), ("bfloat16", "v1", "0"))
        if not (rehearse and runner == "v2")
    )
    # A batch that is a tenth as large: the slowest rival takes ten times as long as lock-step.
    less = ("--batch", "8", "--sequences", "8") if rehearse else ()
    embedded = ("--rounds", "1")
    score = Step("score", ("benchmarks.score", *embedded), seconds=120)
    switch_model = "embedded" if rehearse else "50m"
    switch = Step("switch", ("benchmarks.idle", "--model", switch_model, *embedded), seconds=120)
    rivals = Step("against", ("benchmarks.against", *embedded, *less), seconds=240)
    return (*floor, *paired, score, switch, rivals)


def main() -> None:
    """Do the steps that are not done, as long as there is time; collect and show the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--folder", type=Path, default=Path(".bench/gpu"))
    parser.add_argument("--seconds", type=float, default=480.0, help="for all steps together")
    parser.add_argument("--only", nargs="+", help="names of steps")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    chosen = [step for step in steps(options.rehearse) if step.name in (options.only or step.name)]
    try:
        carry_out(chosen, options.device, options.folder, options.seconds)
    finally:
        collect(options.folder)
    Console(width=110).print(table(chosen, options.folder))


def carry_out(chosen: Sequence[Step], device: str, folder: Path, seconds: float) -> None:
    """Do the steps that have no result in the folder, in order, within so many seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + seconds
    for step in chosen:
        left = ends - time.monotonic()
        if result_file(folder, step).exists():
            continue
        if left < _LEAST_SECONDS:
            print(f"{step.name}: no time is left", flush=True)
            continue
        _do(step, device, folder, min(step.seconds, left))


def _do(step: Step, device: str, folder: Path, seconds: float) -> None:
    log, unfinished = folder / f"{step.name}.log", folder / f"{step.name}.part"
    command = [sys.executable, "-m", *step.command, "--device", device, "--json", str(unfinished)]
    print(f"{step.name}: {' '.join(command[2:])}", flush=True)
    began = time.monotonic()
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **step.environment},
        ) as process,
    ):
        code = _wait(process, seconds)
    took = time.monotonic() - began
    if code == 0 and unfinished.exists():
        unfinished.rename(result_file(folder, step))  # whole, or not there
        print(f"{step.name}: done in {took:.0f} s", flush=True)
        return
    why = f"ended with {code}" if code is not None else f"took more than {seconds:.0f} s"
    print(f"{step.name}: {why} after {took:.0f} s; the end of {log}:", flush=True)
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]:
        print(f"    {line}", flush=True)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit status of a process; None if it was ended because it took longer.

    It is interrupted first, so that it can end its engines, which would go on holding the GPU.
    """
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    except KeyboardInterrupt:  # the process has been told by the terminal, too
        process.wait(_CLOSING_SECONDS)
        raise
    try:
        process.wait(_CLOSING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    return None


def result_file(folder: Path, step: Step) -> Path:
    """Where the result of a step is, if it has one."""
    return folder / f"{step.name}.json"


def collect(folder: Path) -> dict[str, Any]:
    """All results of the folder in one file, `all.json`, by step."""
    found = {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted(folder.glob("*.json"))
        if file.stem != "all"
    }
    (folder / "all.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def table(chosen: Sequence[Step], folder: Path) -> Table:
    """The steps, and the measured medians of those that have a result."""
    shown = Table("step", "measured", "median")
    for step in chosen:
        for name, median in _medians(result_file(folder, step)):
            shown.add_row(step.name, name, median)
    return shown


def _medians(file: Path) -> Iterator[tuple[str, str]]:
    if not file.exists():
        yield "not done", ""
        return
    found = json.loads(file.read_text(encoding="utf-8"))
    for name, spread in {**found["measured"], **found["ratios"]}.items():
        yield name, f"{spread['median']:,.4g}"


if __name__ == "__main__":
    main()
