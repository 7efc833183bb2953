r"""Multiple choice: the one option that an answer names. Pure, linear in the length.

An answer that names no option or several has none:

    B            B   (b)   $\text{B}$   \textbf{(B)}   Option B   B) 10 m/s   B: text
                 B is correct   B because ...
    no option    A or B   (A) and (C)   A, B   10 m/s   not B
                 A proton   A 10-fold rise   (the article, not the option)
"""

from __future__ import annotations

import re

from evaluators.grading.notation import ascii_latex

_TYPESETTING = re.compile(
    r"\\(?:text(?:rm|bf|it|sf|normal)?|underline|math(?:rm|bf|it|sf)|mbox|boldsymbol|operatorname|boxed|bm|bf|rm|it|q?quad)"
    r"(?![A-Za-z])|\\[()\[\],;:! ]|[$*`{}~\"]|__"
)
_LEAD = re.compile(
    r"(?:(?:the|my|final|correct|best|right|answer|option|choice|letter|is)(?![A-Za-z])[ :]*)+",
    re.I,
)
# A letter in brackets, alone, marked as a label, or before words that can only be about it.
_LABEL = re.compile(
    r"(?P<bracket>[(\[])? ?(?P<letter>[A-Za-z]) ?(?(bracket)[)\]]|(?:[)\].:]|$|(?=[,;/]|- )|"
    r"(?= ?\((?![A-Za-z]\))| ?=| ?--|!)|(?<= )(?<![Aa] )(?=\d)|"
    r"(?<= )(?=(?:because|since|is (?:the )?(?:correct|right|best))\b)))"
)
_AND_ANOTHER = re.compile(
    r"(?: ?[,;/&-]| (?:or|and)\b)+ ?(?:or |and )?[(\[]?[A-Za-z](?:[)\].,;]|$| (?:or|and)\b)"
)
_MARKED = re.compile(
    r"[(\[]([A-Z])[)\]]|(?<![A-Za-z0-9])([A-Z])[):](?![A-Za-z])|\b(?:[Nn]o|[Ww]ait|rather|actually),?"
    r" ([B-Z])\b"
)


def option_letter(text: str) -> str | None:
    """The letter of the option in upper case; None when the answer names none or several."""
    plain = " ".join(_TYPESETTING.sub(" ", ascii_latex(text)).split())
    lead = _LEAD.match(plain)
    label = _LABEL.match(plain, lead.end() if lead else 0)
    if label is None:
        return None
    letter, rest = label["letter"].upper(), plain[label.end() :]
    others = {other for groups in _MARKED.findall(rest) for other in groups if other} - {letter}
    return None if others or _AND_ANOTHER.match(rest) else letter
