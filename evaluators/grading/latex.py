r"""A typeset answer -> its formula in plain ASCII LaTeX, whatever its value. Pure.

`**The answer is $\dfrac{1}{2}\,.$**` becomes `\frac{1}{2}`. math-verify could tidy some of
this, but would take every trailing letter for a unit; so it receives tidy formulas.
"""

from __future__ import annotations

import re

from evaluators.grading.notation import ascii_latex

_DELIMITERS = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\(", r"\)"),
    (r"\[", r"\]"),
    ("**", "**"),
    ("__", "__"),
    ("`", "`"),
)
_MAX_DELIMITERS = 8
_ONE_FORMULA_IN_WORDS = re.compile(r"[^\d$\\]*\$([^$]+)\$[^\d$\\]*")
_FONT = r"\\(?:text(?:rm|bf|it|sf|normal)?|math(?:rm|bf|it|sf)|mbox|boldsymbol|bm|boxed|fbox)"
_WRAPPED = re.compile(rf"(?:{_FONT}\s?)?\{{([^{{}}]*)\}}")
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}

_REWRITES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # typesetting: sizes, spaces, ticks
        (
            r"\\(?:display|text|script)style|\\(?:large|Large|LARGE|huge|Huge|small|bf|rm|it|quad|qquad|checkmark)\b",
            " ",
        ),
        (r"(?<!\\)\\!|\\(?:no)?limits\b", ""),
        (r"(?<!\\)\\[,;:> ]|~|\\?\$", " "),
        (r"\\(?:left|right|[bB]igg?[lr]?)\s?(?=\\?[()\[\]{}|])", ""),
        # synonyms
        (r"\\(?:math|text)(?:rm|bf|it|sf)?\s?\{\s?([ei])\s?\}", r" \1 "),
        (r"\\langle\b", "("),
        (r"\\rangle\b", ")"),
        (r"^\s?\\\{\s?([a-zA-Z])\s?(?:\\mid\b|\\vert\b|:|\|)(.*)\\\}\s?$", r"\2"),
        (
            r"^(\d{1,2}(?::\d\d)?)\s?(?:\\text\s?\{\s?)?([aApP])\.?\s?[mM]\.?\s?\}?$",
            lambda match: f"{match[1]} {match[2].lower()}m",
        ),
        (r"\\[dt]?binom\s?(\d)\s?(\d)", r"\\binom{\1}{\2}"),
        (r"\\[dt]binom", r"\\binom"),
        (r"\{([^{}]*)\\choose\b([^{}]*)\}", r"\\binom{\1}{\2}"),
        (r"\\[dtc]frac", r"\\frac"),
        (r"\\frac\s?(\\pi)\s?(\d)", r"\\frac{\1}{\2}"),
        (r"\\varnothing", r"\\emptyset"),
        (r"\\log_(?:e|\{e\})", r"\\ln "),
        (r"\\(le|ge)(?:qslant|q)\b", r"\\\1 "),
        (r"\{,\}(?=\d{3}(?!\d))", ","),
        (r"(?<=\d)\{,\}(?=\d)", "."),
        (r"(?<=\d)\s?(?:\^\s?\{(?:\\text\s?\{)?(?:st|nd|rd|th)\}?\}|(?:st|nd|rd|th)\b)", ""),
        # notation of programming languages
        (r"(?<![\\A-Za-z])(pi|sqrt)(?![A-Za-z])", r"\\\1"),
        (r"\\sqrt\s?\(([^()]*)\)", r"\\sqrt{\1}"),
        (r"(?<![A-Za-z\\\d.])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,3})(?![\w.])", r"\1\\cdot 10^{\2}"),
        # numbers in words and in groups
        (
            rf"(?<=\d)\s?(?:\\text\{{\s?)?({'|'.join(_SCALES)})\b\s?\}}?",
            lambda m: rf"\cdot 10^{{{_SCALES[m[1]]}}}",
        ),
        (r"(?<![\d.,])\d{1,3}(?: \d{3})+(?![\d,])", lambda match: match[0].replace(" ", "")),
    )
]
_LEAD = re.compile(
    r"^(?:(?:the|my|final|correct|answer|result|value|is|equals|thus|so|hence|therefore|approximately|about|roughly)\b\s?"
    r"|\\text\s?\{[^{}]*(?:is|:|=)\s?\}\s?|\\(?:approx|therefore|simeq?)\b\s?|[=:]\s?)+",
    re.I,
)
_BRACKET = re.compile(r"[(\[{]")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?!,?\d)")
_TRIGONOMETRIC = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s?\^\s?(?:\\circ|\{\s?\\circ\s?\})")
# i is the imaginary unit, which math-verify calls I, unless it is an index.
_IMAGINARY = re.compile(r"(?<![A-Za-z\\])i(?![A-Za-z])")
_INDEX = re.compile(r"_\s?\{?\s?i|(?<![A-Za-z])i\s?(?:=|\\in)")


def tidy(text: str, has_thousands: bool = True) -> str:
    """The formula of an answer; an answer in words stays these words.

    Args:
        text: The answer.
        has_thousands: Commas may separate thousands, and are removed from them.
    """
    text = " ".join(ascii_latex(text).replace("...", r"\ldots ").split())
    words = _ONE_FORMULA_IN_WORDS.fullmatch(text)
    text = strip_delimiters(words[1] if words else text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = strip_fonts(_LEAD.sub("", " ".join(text.split()))).rstrip(",;:. \\")
    if _TRIGONOMETRIC.search(text):
        text = _DEGREES.sub(r"{\\frac{\1\\pi}{180}}", text)
    if not _INDEX.search(text):
        text = _IMAGINARY.sub("{I}", text)
    # In (100,200) the comma separates two numbers.
    if has_thousands and (", " in text or not _BRACKET.search(text)):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    return text


def strip_delimiters(text: str) -> str:
    """Remove white space, a full stop, and the delimiters of formulas, bold text and code."""
    for _ in range(_MAX_DELIMITERS):
        text = text.strip().removesuffix(".").rstrip()
        for left, right in _DELIMITERS:
            if (
                text.startswith(left)
                and text.endswith(right)
                and len(text) >= len(left) + len(right)
            ):
                text = text[len(left) : -len(right)]
                break
        else:
            break
    return text


def strip_fonts(text: str) -> str:
    r"""Remove braces and font commands around all of the text: `\text{5}` -> `5`."""
    while (match := _WRAPPED.fullmatch(text)) is not None:
        text = match[1].strip()
    return text
