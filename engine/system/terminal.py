"""Text of strangers on the user's terminal: problems, file names and prompts may hold escape
sequences.
"""


def visible(text: str) -> str:
    r"""`text` with every character that is not printed written out (`\x1b`); line ends and tabs
    stay.
    """
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text
    )


def one_line(text: object) -> str:
    r"""As `visible`, on one line: also line ends and tabs are written out. A name on disk may hold
    them.
    """
    return visible(str(text)).replace("\n", r"\n").replace("\t", r"\t")
