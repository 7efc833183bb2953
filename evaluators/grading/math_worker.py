"""The program of a grading process: reads lines `[golds, answers]`, writes a verdict for each.

It is started by `pool.py` and never imported. An answer may take for ever (`9^{9^{9^9}}`), so the
process may be killed at any moment, and a timer of the kernel ends it at the deadline: even when
the interpreter is inside one long operation, and when the parent is gone. The process can only
compute: its memory is capped, it writes no file, and no text becomes Python. math-verify's own
time-outs are off, since Python cannot handle their signals during a long big-integer operation.
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
from itertools import product
from typing import Any

# Usual answers take 80 MB.
MEMORY_BYTES = 1 << 30
# A process that is larger after an answer ends, so that its size does not fail the next answer.
WORN_OUT_BYTES = 256 << 20

# The audit events of sympy's computations: it imports its own modules and inspects objects. All
# other events are refused.
ALLOWED = {
    "import",
    "marshal.loads",
    "os.listdir",
    "os.scandir",
    "builtins.id",
    "array.__new__",
    "sys._getframe",
    "sys._getframemodulename",
    "object.__getattr__",
    "object.__setattr__",
    "object.__delattr__",
}
# Modules that compile Python, made of names and annotations in sources and never of a formula.
CODE_GENERATORS = {"sympy.polys.monomials", "sympy.abc", "dataclasses", "collections", "typing"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

# A pair of each kind, so that math-verify and sympy import what it needs before the first answer.
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
    """Write "ready" or the fault of the installation, then answer questions until the input ends.

    Args:
        deadline_s: Seconds after which the kernel ends the process over a question.
    """
    replies = _private_stdout()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, MEMORY_BYTES)
    try:
        comparator = FormulaComparator()
        for gold, answer in WARM_UP:
            comparator.compare([gold], [answer])
    except Exception as error:
        os.write(replies, f"{type(error).__name__}: {error}".replace("\n", " ").encode() + b"\n")
        return
    forbid_side_effects()
    os.write(replies, b"ready\n")
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_REAL, deadline_s)  # SIGALRM at its default: the process ends
        verdict = _verdict(comparator, *json.loads(line))
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.write(replies, verdict.encode() + b"\n")
        if resident_bytes() > WORN_OUT_BYTES:
            return


def resident_bytes() -> int:
    """Memory in use now, in bytes.

    getrusage would give a peak, which a process inherits from its parent.
    """
    with open("/proc/self/statm", "rb") as numbers:
        return int(numbers.read().split()[1]) * resource.getpagesize()


class FormulaComparator:
    """Compares formulas without delimiters by math-verify."""

    def __init__(self) -> None:
        # sympy evaluates the text of a number as Python, always through this function.
        vars(import_module("sympy.parsing.sympy_parser"))["parse_expr"] = parse_number
        math_verify, parser = import_module("math_verify"), import_module("math_verify.parser")
        # Units are off: they are stripped before, and math-verify would take the d of 3d for one.
        rules = parser.NormalizationConfig(
            units=False, malformed_operators=True, nits=True, boxed="none"
        )
        self._kinds = [math_verify.LatexExtractionConfig(normalization_config=rules)]
        self._parse, self._verify = math_verify.parse, math_verify.verify
        self._seed = import_module("sympy.core.random").seed
        self._set_mode = _parsing_modes()
        self._read_gold = lru_cache(maxsize=1_000)(self._read)

    def compare(self, golds: Readings, answers: Readings) -> bool:
        """True if a reading of the answer equals a reading of the gold answer: not symmetric.

        Raises:
            ValueError: No reading of the gold answer is a formula.
        """
        self._seed(0)  # sympy tries formulas on random numbers
        gold_formulas = [formula for gold in golds for formula in self._read_gold(gold)]
        if not gold_formulas:
            raise ValueError("the gold answer is not a formula")
        formulas = [formula for answer in answers for formula in self._read(answer)]
        return any(
            self._are_equal(*pair)
            for gold, answer in product(gold_formulas, formulas)
            for pair in _pairs_to_compare(gold, answer)
        )

    def _are_equal(self, gold: Any, answer: Any) -> bool:
        is_equal = self._verify(
            gold, answer, timeout_seconds=None, raise_on_error=True, allow_set_relation_comp=True
        )
        return is_equal and not _is_false_match(gold, answer)

    def _read(self, formula: str) -> list[Any]:
        """The parsed formula in a list, which is empty when the text is no formula."""
        for mode in ("SLL", "LL"):
            self._set_mode(mode)
            parsed = self._parse(
                f"${formula}$",
                self._kinds,
                "no_fallback",
                parsing_timeout=None,
                raise_on_error=True,
            )
            if parsed:
                return list(parsed)
        return []


def _parsing_modes() -> Callable[[str], None]:
    """A function that sets the prediction mode of the ANTLR parser.

    SLL is several times as fast as LL, the default, and finds the same parse or none.
    """
    modes = import_module("antlr4.atn.PredictionMode").PredictionMode
    simulator = import_module("antlr4.atn.ParserATNSimulator").ParserATNSimulator
    current = [modes.LL]
    # A property of the class comes before what each parser sets for itself.
    simulator.predictionMode = property(lambda self: current[0], lambda self, mode: None)
    return lambda mode: current.__setitem__(0, modes[mode])


def parse_number(text: str, *_: object, **__: object) -> Any:
    """sympy's number for a numeral and its symbol for a name.

    Stands in for `parse_expr`, which evaluates any Python.

    Raises:
        SyntaxError: The text is neither.
    """
    sympy = import_module("sympy")
    if re.fullmatch(r"\d+", text, re.ASCII):
        return sympy.Integer(int(text))
    if re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", text, re.ASCII):
        return sympy.Float(text)
    if re.fullmatch(r"[A-Za-z]\w*", text, re.ASCII):
        return sympy.Symbol(text)
    raise SyntaxError("neither a numeral nor a name")


def forbid_side_effects() -> None:
    """Forbid this process for good to write files, start programs, connect, or compile text.

    This is a second wall behind `parse_number`. It stops the events that Python audits, not every
    system call.
    """
    _limit(resource.RLIMIT_FSIZE, 0)
    sys.dont_write_bytecode = True
    sys.addaudithook(_refuse)


def _refuse(event: str, details: tuple[Any, ...]) -> None:
    if event in ALLOWED or (event == "open" and not details[2] & WRITING):
        return
    if event in ("compile", "exec"):
        source = details[1] if event == "compile" else details[0].co_filename
        caller = sys._getframe(1).f_globals.get("__name__")
        if not str(source).startswith("<") or caller in CODE_GENERATORS:
            return
    raise PermissionError(f"a grading process does not {event}")


def _pairs_to_compare(gold: Any, answer: Any) -> list[tuple[Any, Any]]:
    """The two formulas and, if only one is a lone letter, both plus 1.

    math-verify compares a lone letter by its name, so that `x` would not equal `2x/2`.
    """
    expression = import_module("sympy").Expr
    if not (isinstance(gold, expression) and isinstance(answer, expression)):
        return [(gold, answer)]
    if gold.is_Symbol == answer.is_Symbol:
        return [(gold, answer)]
    return [(gold, answer), (gold + 1, answer + 1)]


def _is_false_match(gold: Any, answer: Any) -> bool:
    """True if math-verify takes two formulas for equal that are not.

    It compares numbers to fifteen decimal places, whatever their size, and equations by their real
    solutions, which neither may have.
    """
    sympy = import_module("sympy")
    if isinstance(gold, sympy.Eq) and isinstance(answer, sympy.Eq):
        ratio = sympy.simplify((gold.lhs - gold.rhs) / (answer.lhs - answer.rhs))
        return bool(gold.free_symbols) and bool(ratio.free_symbols) and _has_no_solution(gold)
    lists = (sympy.Tuple, sympy.FiniteSet, sympy.Interval)

    def members(formula: Any) -> list[Any]:
        parts = formula.args if isinstance(formula, lists) else (formula,)
        return [part for part in parts if isinstance(part, sympy.Expr)]

    numbers = members(answer)
    return bool(numbers) and any(
        all(_are_apart(member, number) for number in numbers) for member in members(gold)
    )


def _has_no_solution(equation: Any) -> bool:
    """True for an equation without a real solution: math-verify takes all of them for equal."""
    sympy = import_module("sympy")
    symbol = min(equation.free_symbols, key=str)
    real = sympy.Dummy(real=True)
    return not sympy.solve(equation.subs(symbol, real), real)


def _are_apart(gold: Any, answer: Any) -> bool:
    """True for two numbers that differ in their leading digits.

    Sixty digits count for exact numbers, and six if one is a decimal. Decimals are compared only
    below 0.001, where math-verify's decimal places do not tell them apart.
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


def _verdict(comparator: FormulaComparator, golds: Readings, answers: Readings) -> str:
    try:
        return "correct" if comparator.compare(golds, answers) else "wrong"
    except MemoryError:
        os._exit(1)  # this process is damaged; the parent tries once more in a fresh one
    except Exception:
        return "ungradable"


def _limit(kind: int, maximum: int) -> None:
    with contextlib.suppress(ValueError, OSError):  # a lower limit is in force already
        resource.setrlimit(kind, (maximum, maximum))


def _private_stdout() -> int:
    """A descriptor for the verdicts alone: a parser's print to stdout must not look like one."""
    replies = os.dup(1)
    os.dup2(2, 1)
    return replies


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent may have SIGALRM ignored or blocked, and its child inherits that.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    logging.disable()  # math-verify warns at every start that its time-outs are off
    serve(float(sys.argv[1]))
