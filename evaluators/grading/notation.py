r"""Unicode -> ASCII and LaTeX, for the comparison of answers only. Pure, linear in the length.

`x² ≤ ½` becomes `x^{2} \le \frac{1}{2}`. A compatibility form (full width, bold, superscript) is
replaced according to its kind: NFKC would drop the kind, and `5²` would become 52. Digits of every
script become ASCII. Invisible characters (zero width, direction, control) are removed. Unknown
characters stay.
"""

# ruff: noqa: RUF001 - this file is about characters that look like others

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import groupby

_MINUS = (
    "\N{MINUS SIGN}\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{FIGURE DASH}"
    "\N{SMALL HYPHEN-MINUS}\N{HEAVY MINUS SIGN}"
)
_COMMANDS = {
    "×": "times",
    "✕": "times",
    "⨯": "times",
    "÷": "div",
    "·": "cdot",
    "⋅": "cdot",
    "∙": "cdot",
    "•": "cdot",
    "±": "pm",
    "∓": "mp",
    "≤": "le",
    "⩽": "le",
    "≥": "ge",
    "⩾": "ge",
    "≠": "ne",
    "≈": "approx",
    "≡": "equiv",
    "∞": "infty",
    "∅": "emptyset",
    "⌀": "emptyset",
    "∪": "cup",
    "∩": "cap",
    "∈": "in",
    "∉": "notin",
    "∖": "setminus",
    "ℝ": "mathbb{R}",
    "ℤ": "mathbb{Z}",
    "ℕ": "mathbb{N}",
    "ℚ": "mathbb{Q}",
    "ℂ": "mathbb{C}",
    "…": "ldots",
    "⋯": "cdots",
    "⌊": "lfloor",
    "⌋": "rfloor",
    "⌈": "lceil",
    "⌉": "rceil",
    "√": "sqrt",
    "∠": "angle",
    "→": "to",
    "⇒": "Rightarrow",
    "∑": "sum",
    "∏": "prod",
    "∫": "int",
}
_PLAIN = {
    **dict.fromkeys(_MINUS, "-"), "°": r"^\circ ", "º": r"^\circ ", "∗": "*", "∕": "/", "⁄": "/",
    "∶": ":", "。": ".", "、": ",", "٫": ".", "٬": ",", "′": "'", "‘": "'", "’": "'", "“": '"',
    "”": '"', "∣": "|", "｜": "|", "ı": "i",
}  # fmt: skip
_GREEK = re.compile(
    "GREEK (SMALL|CAPITAL) LETTER "
    "(ALPHA|BETA|GAMMA|DELTA|EPSILON|ZETA|ETA|THETA|IOTA|KAPPA|LAMDA|MU|NU|XI|PI|RHO|"
    "SIGMA|TAU|UPSILON|PHI|CHI|PSI|OMEGA)"
)
# Kinds of compatibility forms whose characters mean the same in plain type.
_PLAIN_KINDS = frozenset({"font", "wide", "narrow", "square", "circle", "noBreak"})

_ROOT = re.compile(r"([√∛∜])[ \t]*(?:(\d+(?:\.\d+)?|[^\W\d_])|\(([^()]*)\))")
_INDEX = {"√": "", "∛": "[3]", "∜": "[4]"}
# An en or em dash before a term is a minus sign; between two numbers it makes a range.
_DASH = re.compile(r"(?<!\d)[–—](?=\s?[\w\\(.])")
_FOREIGN = re.compile(r"[^\x20-\x7e]+")


def ascii_latex(text: str) -> str:
    """The text in ASCII and LaTeX, as far as they have its characters.

    ASCII text only loses its control characters.
    """
    if text.isascii():
        return _FOREIGN.sub(_run, text)
    # What follows a dash is known once it is LaTeX: a symbol such as infinity is a term, too.
    return _DASH.sub("-", _FOREIGN.sub(_run, _ROOT.sub(_root, text)))


def _root(match: re.Match[str]) -> str:
    sign, atom, group = match.groups()
    return rf"\sqrt{_INDEX[sign]}{{{group if atom is None else atom}}}"


def _run(match: re.Match[str]) -> str:
    """The LaTeX of a run of foreign characters; adjacent superscripts (`¹⁰`) are one exponent."""
    pieces = []
    for mark, group in groupby(map(_character, match.group()), key=lambda pair: pair[0]):
        content = "".join(latex for _, latex in group)
        pieces.append(f"{mark}{{{content}}}" if mark else content)
    return "".join(pieces)


@lru_cache(maxsize=4096)
def _character(char: str) -> tuple[str, str]:
    """(`^`, `_` or "", the character's LaTeX)."""
    if char in _COMMANDS:
        return "", rf"\{_COMMANDS[char]} "
    if char in _PLAIN:
        return "", _PLAIN[char]
    category = unicodedata.category(char)
    if category == "Nd":
        return "", str(unicodedata.decimal(char))
    if category[0] == "Z" or char in "\t\n\v\f\r\x85":
        return "", " "
    if category in ("Cc", "Cf") or char in "\N{VARIATION SELECTOR-15}\N{VARIATION SELECTOR-16}":
        return "", ""
    return _greek(char) or _compatibility_form(char)


def _greek(char: str) -> tuple[str, str] | None:
    letter = _GREEK.fullmatch(unicodedata.name(char, ""))
    if letter is None:
        return None
    name = letter[2].replace("LAMDA", "LAMBDA")
    return "", f"\\{name.capitalize() if letter[1] == 'CAPITAL' else name.lower()} "


def _compatibility_form(char: str) -> tuple[str, str]:
    kind, _, codes = unicodedata.decomposition(char).partition("> ")
    latex = "".join(_character(chr(int(code, 16)))[1] for code in codes.split()) if codes else ""
    match kind[1:]:
        case "super":
            return "^", latex
        case "sub":
            return "_", latex
        case "fraction":
            numerator, _, denominator = latex.partition("/")
            return "", rf"\frac{{{numerator}}}{{{denominator or 1}}}"
        case plain if plain in _PLAIN_KINDS:
            return "", latex
    return "", char
