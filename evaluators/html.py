"""What the HTML pages share: escaping templates, and hashes for a Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def environment(folder: Path) -> Environment:
    """The Jinja environment of a folder: it escapes every value and refuses an undefined name."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def hash_source(text: str) -> str:
    """The hash by which a CSP level 2 policy allows an inline style or script: `sha256-...`."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode(
        "ascii"
    )
