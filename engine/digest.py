"""A short fingerprint of rows, the same whatever their order: what run.json keeps of things too long to be there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any


def digest(rows: Iterable[tuple[Any, ...]]) -> str:
    """16 hexadecimal digits; the values of a row are those that JSON knows."""
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()[:16]
