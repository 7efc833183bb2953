"""The first run: a few base tokens in the RL model's responses, and what they do to accuracy.

    python examples/first_run.py [FOLDER]

Runs the embedded pair on the CPU, in about a minute. Give other models with `base` and `rl`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.compute as pc

import xsample


def main(folder: Path) -> None:
    """Make the run (or resume it), print its curve, write its report."""
    config = xsample.load_config(
        direction="reverse",
        budget=[0, 1, 4],
        limit=16,
        samples=2,
        out=str(folder / "reverse"),
    )
    print(xsample.prepare(config))

    run = xsample.run(config)
    for arm in run.curve().to_pylist():
        print(
            f"budget {arm['budget']}: accuracy {arm['accuracy']:.1%}"
            f" ({arm['low']:.1%} to {arm['high']:.1%}),"
            f" {arm['effective']:.1f} tokens changed per response"
        )

    js = run.tokens(["js"])["js"].drop_null()
    print(f"positions where the policies differ: {pc.mean(pc.greater(js, 0.1)).as_py():.1%}")
    print(f"report: {run.report()}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
