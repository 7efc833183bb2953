"""Program of a grading process: a line `[gold, answer]` in, a verdict out, until its input ends. Not imported.

Answers are hostile without meaning to be (`9^{9^{9^9}}`), so this process may be killed at any moment, and
sees to it that it is: the kernel ends it at the deadline, whatever holds the interpreter, also when its
parent is gone; and memory is capped. math-verify's own time-outs are off: they are signals to Python code,
which a long big-integer operation never reads.
"""

import contextlib
import json
import logging
import os
import resource
import signal
import sys

MEMORY_BYTES = 4 << 30
# A process this big is replaced before it takes the next answer: what one answer left must not fail another.
WORN_OUT_KIB = 1 << 20


def serve(deadline_s: float) -> None:
    replies = _private_stdout()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):  # a lower limit is in force already
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        is_equal("1", "1")  # imports and compiles what the first answer would wait for
    except Exception as error:
        os.write(replies, f"{type(error).__name__}: {error}".replace("\n", " ").encode() + b"\n")
        return
    os.write(replies, b"ready\n")
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, deadline_s)  # SIGALRM at its default: the process ends
        verdict = _verdict(*json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, verdict.encode() + b"\n")
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > WORN_OUT_KIB:
            return


def is_equal(gold: str, answer: str) -> bool:
    """math-verify's judgement on two formulas without delimiters. Not symmetric: gold first."""
    from math_verify import LatexExtractionConfig, parse, verify

    parsed = [
        parse(f"${formula}$", [LatexExtractionConfig()], parsing_timeout=None, raise_on_error=True)
        for formula in (gold, answer)
    ]
    if not parsed[0]:
        raise ValueError("the gold answer is not a formula")
    return bool(verify(*parsed, timeout_seconds=None, raise_on_error=True))


def _verdict(gold: str, answer: str) -> str:
    try:
        return "correct" if is_equal(gold, answer) else "wrong"
    except MemoryError:
        os._exit(1)  # nothing can be trusted now; the parent tries once more in a fresh process
    except Exception:
        return "ungradable"


def _private_stdout() -> int:
    """Our replies' own descriptor: what a parser prints to stdout must not look like a verdict."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable()  # math-verify warns at every start that its time-outs are off
    serve(float(sys.argv[1]))
