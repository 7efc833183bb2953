"""Runs of each kind give the tokens that they gave when they were recorded.

The oracle of `tests/support/reference.py` proves what a token must be. This file notices when a
change of how work is shared out changes one. `python -m tests.engine.run.test_recorded_tokens`
records anew, which is right only where the rules themselves have changed. A processor that adds up
in another order may differ in one token of many thousands.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from engine.core import TRAJECTORY_KEY
from tests.support.engines import complete, keys_of, plan_of

RECORDED = Path(__file__).with_name("recorded_tokens.json")
SMALL: dict[str, Any] = {"direction": "both", "limit": 4, "samples": 2}
KINDS: dict[str, dict[str, Any]] = {
    "sweep": SMALL | {"budget": (0, 1, 4, None)},
    "one direction": SMALL | {"direction": "reverse", "budget": (1,), "samples": 4},
    "full trace": SMALL | {"budget": (1, 4), "trace": "full"},
    "random": SMALL | {"budget": (2,), "criterion": "random", "threshold": 0.1},
    "entropy": SMALL | {"budget": (2, None), "criterion": "entropy-rl", "threshold": 1.0},
    "extrapolated": SMALL | {"budget": (2,), "extrapolate": 2.0, "extrapolate_to": "rl"},
}


def digest(settings: dict[str, Any], out: Path) -> str:
    """A hash of the tokens of a run, of where it intervened, and of what that changed."""
    rows = complete(plan_of(out=str(out), **settings)).tokens().to_table()
    rows = rows.sort_by([(name, "ascending") for name in (*TRAJECTORY_KEY, "position")])
    digest = sha256("\n".join(map(str, keys_of(rows))).encode())
    for name in ("position", "token", "intervened", "effective"):
        digest.update(rows[name].to_numpy().astype(np.int64).tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("kind", KINDS)
def test_gives_the_recorded_tokens(kind: str, tmp_path: Path) -> None:
    assert digest(KINDS[kind], tmp_path / "run") == json.loads(RECORDED.read_text())[kind]


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        found = {kind: digest(own, Path(folder) / kind) for kind, own in KINDS.items()}
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(f"{len(found)} runs recorded\n")
