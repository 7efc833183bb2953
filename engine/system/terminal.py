"""Text of strangers on the user's terminal.

Problems, file names and prompts may hold escape sequences, which a terminal would obey.
"""


def visible(text: str) -> str:
    r"""Write out every character that cannot be printed (`\x1b`), but for line ends and tabs."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text
    )


def one_line(text: object) -> str:
    r"""Write out every character that cannot be printed, line ends (`\n`) and tabs (`\t`) too.

    Args:
        text: What is shown as text, such as a path: a name on disk may hold line ends.
    """
    return visible(str(text)).replace("\n", r"\n").replace("\t", r"\t")
