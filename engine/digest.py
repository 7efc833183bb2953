"""Short fingerprints: of rows whatever their order, which run.json keeps in their place, and of a
whole run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any


def digest(rows: Iterable[tuple[Any, ...]]) -> str:
    """16 hexadecimal digits; the values of a row are those that JSON knows."""
    return _digits(sorted(rows))


def digest_of(value: Mapping[str, Any]) -> str:
    """The same of one object, whatever the order of its keys."""
    return _digits(value)


def _digits(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
