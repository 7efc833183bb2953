"""The control that reviewers ask for: as many interventions, but at random positions.

    python examples/random_control.py [FOLDER]

If tokens at random positions changed as much, the positions of high divergence would mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xsample


def main(folder: Path) -> None:
    """Make a run and its matched control, and put both into one report."""
    chosen = xsample.run(
        direction="forward", budget=[0, 4], limit=16, samples=2, out=str(folder / "chosen")
    )
    control = xsample.run(criterion="random", match=str(chosen.path), out=str(folder / "random"))
    for name, run in (("high divergence", chosen), ("random positions", control)):
        last = run.curve().to_pylist()[-1]
        print(
            f"{name}: accuracy {last['accuracy']:.1%} with {last['interventions']:.1f}"
            " interventions per response"
        )
    print(f"report: {xsample.report([chosen, control], folder / 'report')}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
