r"""How long until a run makes its first tokens? `xsample run` on the embedded pair, from the
command line to its end.

    python -m benchmarks.startup [--rounds 5] [--json FILE]

The command is a process of its own, as a user starts it, over 200 problems, a sample each; the
seconds are those at which it says a line, from its start. Its display is told to say its numbers as
soon as it has some; engines tell theirs once a second, so "first tokens" may be up to a second
late. `--help` and `--dry-run` end without an engine; what `run --help` and `import xsample` cost is
given in CPU seconds, Python's own start included. The README's command is timed as a whole. Beside
it: a script that loads the base model alone into vLLM and generates one token, a process of its own
too. One round that does not count fills the caches of the file system and of bytecode.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import result
from benchmarks.result import Result, speed_up, spread, spreads_table
from engine.run.placement import pair_config
from engine.run.plan import prepare
from engine.run.settings import load
from evaluators.tasks.registry import load_task

# What a line of the run begins with or holds -> what has happened then.
_STAGES = {
    "run directory": "models and task are checked",
    "starting Ray": "starting Ray",
    "loading ": "Ray is there, the engines are loading",
    "pair 1: ready": "engines are ready",
    " tokens/s": "first tokens",
    "grading": "all is made, engines have ended",
}
_XSAMPLE = """
from engine.system import display
display.PLAIN_SECONDS = 0.0
from xsample.cli.main import main
main()
"""
_PLAIN = """
import json, sys
from vllm import LLM, SamplingParams
llm = LLM(**json.loads(sys.argv[1]), skip_tokenizer_init=True)
params = SamplingParams(max_tokens=1, detokenize=False)
llm.generate([{"prompt_token_ids": [1, 2, 3]}], params, use_tqdm=False)
print("first token", flush=True)
"""
PLAIN = "one vLLM engine, first token"
HELP, IMPORT, DEMO = "run --help, CPU", "import xsample, CPU", "the README's command"
AIMS = {HELP: 0.5, IMPORT: 0.1, DEMO: 90.0}  # seconds
README = ["run", "--budget", "8", "--direction", "reverse"]
SETTINGS: dict[str, Any] = {"budget": "8", "direction": "reverse", "samples": 1, "device": "cpu"}


def main() -> None:
    """Run the rounds, print the table."""
    options = result.options(__doc__, rounds=5).parse_args()
    found = measure(options)
    aims = ", ".join(f"{name} {seconds:g}" for name, seconds in AIMS.items())
    title = f"seconds from the start of the command; aims: {aims}"
    found.publish([spreads_table(title, found.measured)], options.json)


def measure(options: argparse.Namespace) -> Result:
    """The rounds, after one that does not count."""
    seconds = defaultdict[str, list[float]](list)
    config = load(None, SETTINGS | {"out": "unused"})
    worker = pair_config(prepare(config, load_task(config)), 0)
    plain = json.dumps(
        worker.workers["base"].engine_args
        | {
            "kv_cache_memory_bytes": worker.kv_cache_bytes,
            "gpu_memory_utilization": 0.01,
        }
    )
    for round_ in range(options.rounds + 1):
        for name, at in list(one_round(plain)):
            if round_:
                seconds[name].append(at)
    measured = {f"{name}, s": spread(values) for name, values in seconds.items()}
    ratios = {PLAIN: speed_up(seconds["first tokens"], seconds[PLAIN])}
    return Result("startup", SETTINGS | {"rounds": options.rounds}, measured, ratios)


def one_round(plain: str) -> Iterator[tuple[str, float]]:
    """What was reached, and after how many seconds. plain: arguments of the lone engine, as
    JSON.
    """
    with TemporaryDirectory(prefix="xsample-") as folder:
        arguments = ["run", *options_of(SETTINGS), "--out", f"{folder}/run"]
        yield "--help", duration(_XSAMPLE, ["--help"])
        yield HELP, cpu_seconds(_XSAMPLE, ["run", "--help"])
        yield IMPORT, cpu_seconds("import xsample", [])
        yield DEMO, duration(_XSAMPLE, [*README, "--out", f"{folder}/demo"])
        yield "run --dry-run", duration(_XSAMPLE, [*arguments, "--dry-run"])
        yield from stages(start(_XSAMPLE, [*arguments, "--no-report"]))
        yield PLAIN, {line: at for at, line in start(_PLAIN, [plain])}["first token"]


def options_of(settings: dict[str, Any]) -> list[str]:
    """Settings as the command line has them."""
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def duration(script: str, arguments: Sequence[str]) -> float:
    """Seconds that a script takes."""
    *_, (at, _) = start(script, arguments)
    return at


def cpu_seconds(script: str, arguments: Sequence[str]) -> float:
    """CPU seconds of the process of a script, Python's own start included."""
    before = os.times()
    duration(script, arguments)
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def start(script: str, arguments: Sequence[str]) -> Iterator[tuple[float, str]]:
    """Seconds and line of all that a script says, and its end. Raises RuntimeError with what it
    said if it fails.
    """
    began, said = time.perf_counter(), list[str]()
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            said.append(line.rstrip())
            yield time.perf_counter() - began, said[-1]
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {' | '.join(said)}")
    yield time.perf_counter() - began, "the end"


def stages(lines: Iterator[tuple[float, str]]) -> Iterator[tuple[str, float]]:
    """When each stage was first reached, in their order; and the end. Every one must have been."""
    waiting = dict(_STAGES)
    at = 0.0
    for at, line in lines:
        sign = next(iter(waiting), None)
        if sign and sign in line:
            yield waiting.pop(sign), at
    assert not waiting, f"the run never said {', '.join(waiting)}"
    yield "summary is written, end", at


if __name__ == "__main__":
    main()
