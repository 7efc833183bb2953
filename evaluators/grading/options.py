r"""Multiple choice: the one letter that an answer names. Pure, linear.

named       B   (b)   $\text{B}$   \textbf{(B)}   Option B   B) 10 m/s   B: text   B is correct   B
because ... not named   A or B   (A) and (C)   A, B   A proton, A 10-fold rise (articles)   10 m/s
not B
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
# In brackets, or alone, or marked as a label, or before words that can only be about it.
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


def letter(text: str) -> str | None:
    """The option, in upper case; None when the answer names none, or more than one."""
    plain = " ".join(_TYPESETTING.sub(" ", ascii_latex(text)).split())
    lead = _LEAD.match(plain)
    label = _LABEL.match(plain, lead.end() if lead else 0)
    if label is None:
        return None
    named, rest = label["letter"].upper(), plain[label.end() :]
    others = {other for found in _MARKED.findall(rest) for other in found if other} - {named}
    return None if others or _AND_ANOTHER.match(rest) else named
