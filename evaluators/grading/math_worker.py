"""Program of a grading process: a line `[golds, answers]` in, a verdict out, until its input ends.
Not imported.

Answers are hostile without meaning to be (`9^{9^{9^9}}`), so this process may be killed at any
moment, and sees to it that it is: the kernel ends it at the deadline, whatever holds the
interpreter, also when its parent is gone. It can do nothing but compute: memory is capped, no file
is written, no text becomes Python. math-verify's own time-outs are off: they are signals to Python
code, which a long big-integer operation never reads.
"""

import contextlib
import json
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

# A process needs 80 MB for what people write.
MEMORY_BYTES = 1 << 30
# A process this big is replaced before it takes the next answer: what one answer left must not fail
# another.
WORN_OUT_BYTES = 256 << 20

# What sympy does to compute: import its own modules, look at objects. Other events that Python
# audits are refused.
ALLOWED = {
    "import",
    "marshal.loads",
    "os.listdir",
    "os.scandir",
    "builtins.id",
    "array.__new__",
    "sys._getframe",
}
ALLOWED |= {
    "sys._getframemodulename",
    "object.__getattr__",
    "object.__setattr__",
    "object.__delattr__",
}
# These write or read Python of their own, from names and annotations in sources, never from a
# formula.
WRITERS_OF_PYTHON = {"sympy.polys.monomials", "sympy.abc", "dataclasses", "collections", "typing"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# One of each kind: what math-verify and sympy import for them is there before the first answer.
WARM_UP = (
    (r"\frac{1}{2}", "0.25+0.25"),
    (r"\sin^2 x + \cos^2 x", "y + 1"),
    (r"(-\infty, 1) \cup [2, 3)", "x < 1"),
    (r"\{1, 2\}", "1, 3"),
    (r"x + 2y = 3", "2x - y = 4"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 3 \end{pmatrix}"),
    (r"\log_2 8", r"\sum_{k=1}^{3} \binom{3}{k}"),
)

Readings = list[str]


def serve(deadline_s: float) -> None:
    """Answer until the input ends; before, say "ready", or what is wrong with the installation."""
    replies = _private_stdout()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    try:
        judge = Judge()
        for gold, answer in WARM_UP:
            judge.is_equal([gold], [answer])
    except Exception as error:
        os.write(replies, f"{type(error).__name__}: {error}".replace("\n", " ").encode() + b"\n")
        return
    only_compute()
    os.write(replies, b"ready\n")
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, deadline_s)  # SIGALRM at its default: the process ends
        verdict = _verdict(judge, *json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, verdict.encode() + b"\n")
        if resident_bytes() > WORN_OUT_BYTES:
            return


def resident_bytes() -> int:
    """Memory in use now. The peak that getrusage knows begins with that of the process that started
    this one.
    """
    with open("/proc/self/statm", "rb") as numbers:
        return int(numbers.read().split()[1]) * resource.getpagesize()


class Judge:
    """math-verify on formulas without delimiters."""

    def __init__(self) -> None:
        # sympy reads a number by evaluating its text as Python; all its ways to do so meet in this
        # name.
        vars(import_module("sympy.parsing.sympy_parser"))["parse_expr"] = number
        math_verify, parser = import_module("math_verify"), import_module("math_verify.parser")
        # Units are off: what is a unit was decided before, and math-verify would take the d of 3d
        # for one.
        rules = parser.NormalizationConfig(
            units=False, malformed_operators=True, nits=True, boxed="none"
        )
        self._kinds = [math_verify.LatexExtractionConfig(normalization_config=rules)]
        self._parse, self._verify = math_verify.parse, math_verify.verify
        self._seed = import_module("sympy.core.random").seed
        self._set_mode = _parsing_modes()
        self._read_gold = lru_cache(maxsize=1_000)(self._read)

    def is_equal(self, golds: Readings, answers: Readings) -> bool:
        """Some reading of the answer equals one of the gold answer, which comes first: it is not
        symmetric.
        """
        self._seed(0)  # sympy tries formulas on random numbers
        meant = [formula for gold in golds for formula in self._read_gold(gold)]
        if not meant:
            raise ValueError("the gold answer is not a formula")
        said = [formula for answer in answers for formula in self._read(answer)]
        return any(
            self._are_equal(*pair)
            for gold in meant
            for answer in said
            for pair in _also(gold, answer)
        )

    def _are_equal(self, gold: Any, answer: Any) -> bool:
        is_equal = self._verify(
            gold, answer, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True
        )
        return is_equal and not _differ(gold, answer)

    def _read(self, formula: str) -> list[Any]:
        """The formula in a list; none if it is not one."""
        for mode in ("SLL", "LL"):
            self._set_mode(mode)
            read = self._parse(
                f"${formula}$",
                self._kinds,
                "no_fallback",
                parsing_timeout=None,
                raise_on_error=True,
            )
            if read:
                return list(read)
        return []


def _parsing_modes() -> Callable[[str], None]:
    """A switch for ANTLR: SLL is several times as fast as LL, its default, and finds the same parse
    or none.
    """
    modes = import_module("antlr4.atn.PredictionMode").PredictionMode
    simulator = import_module("antlr4.atn.ParserATNSimulator").ParserATNSimulator
    current = [modes.LL]
    # A property of the class comes before what each parser sets for itself.
    simulator.predictionMode = property(lambda self: current[0], lambda self, mode: None)
    return lambda mode: current.__setitem__(0, modes[mode])


def number(text: str, *_: object, **__: object) -> Any:
    """sympy's number for a numeral, its symbol for a name; instead of `parse_expr`, which evaluates
    any Python.
    """
    sympy = import_module("sympy")
    if re.fullmatch(r"\d+", text, re.ASCII):
        return sympy.Integer(int(text))
    if re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return sympy.Float(text)
    if re.fullmatch(r"[A-Za-z]\w*", text, re.ASCII):
        return sympy.Symbol(text)
    raise SyntaxError("neither a numeral nor a name")


def only_compute() -> None:
    """From here on this process writes no file, starts nothing, reaches nothing, and compiles no
    text.

    A second wall: no answer gets as far as to be run. It stops what Python audits, not every call
    of the system.
    """
    _limit(resource.RLIMIT_FSIZE, 0)
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse)


def _refuse(event: str, details: tuple[Any, ...]) -> None:
    if event in ALLOWED or (event == "open" and not details[2] & WRITING):
        return
    if event in ("compile", "exec"):
        source = details[1] if event == "compile" else details[0].co_filename
        if (
            not str(source).startswith("<")
            or sys._getframe(1).f_globals.get("__name__") in WRITERS_OF_PYTHON
        ):
            return
    raise PermissionError(f"a grading process does not {event}")


def _also(gold: Any, answer: Any) -> list[tuple[Any, Any]]:
    """The two, and 1 more of each if one is a lone letter: math-verify compares that by its name,
    also to `2x/2`.
    """
    terms = import_module("sympy").Expr
    is_letter = [isinstance(side, terms) and side.is_Symbol for side in (gold, answer)]
    both = isinstance(gold, terms) and isinstance(answer, terms)
    return [
        (gold, answer),
        *([(gold + 1, answer + 1)] if both and is_letter[0] != is_letter[1] else []),
    ]


def _differ(gold: Any, answer: Any) -> bool:
    """What math-verify took for equal and is not: it compares numbers to fifteen places, whatever
    their size, and equations by their real solutions, of which there may be none.
    """
    sympy = import_module("sympy")
    if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        ratio = sympy.simplify((gold.lhs - gold.rhs) / (answer.lhs - answer.rhs))
        return bool(gold.free_symbols) and bool(ratio.free_symbols) and _has_no_solution(gold)
    lists = (sympy.Tuple, sympy.FiniteSet, sympy.Interval)
    members = [side.args if isinstance(side, lists) else (side,) for side in (gold, answer)]
    given, said = ([member for member in of if isinstance(member, sympy.Expr)] for of in members)
    return bool(said) and any(all(_are_apart(one, other) for other in said) for one in given)


def _has_no_solution(equation: Any) -> bool:
    """No real one: then any two such equations look alike."""
    sympy = import_module("sympy")
    symbol = min(equation.free_symbols, key=str)
    real = sympy.Dummy(real=True)
    return not sympy.solve(equation.subs(symbol, real), real)


def _are_apart(gold: Any, answer: Any) -> bool:
    """Two numbers differ in their leading digits: in six if one was written as a decimal, else in
    sixty.
    """
    sympy = import_module("sympy")
    if not all(
        isinstance(side, sympy.Expr) and side.is_number and side.is_finite
        for side in (gold, answer)
    ):
        return False
    is_rounded = gold.has(sympy.Float) or answer.has(sympy.Float)
    values = [sympy.N(side, 50) for side in (gold, answer)]
    size = max(map(abs, values))
    if is_rounded and not size < 1e-3:
        return False
    return bool(abs(sympy.N(gold - answer, 50)) > (1e-6 if is_rounded else 1e-60) * size)


def _verdict(judge: Judge, golds: Readings, answers: Readings) -> str:
    try:
        return "correct" if judge.is_equal(golds, answers) else "wrong"
    except MemoryError:
        os._exit(1)  # nothing can be trusted now; the parent tries once more in a fresh process
    except Exception:
        return "ungradable"


def _limit(what: int, most: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower limit is in force already
        resource.setrlimit(what, (most, most))


def _private_stdout() -> int:
    """Our replies' own descriptor: what a parser prints to stdout must not look like a verdict."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(
        signal.SIGALRM, signal.SIG_DFL
    )  # whoever started us may have had it ignored or blocked
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    logging.disable()  # math-verify warns at every start that its time-outs are off
    serve(float(sys.argv[1]))
