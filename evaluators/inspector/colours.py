"""The colour of a divergence: from light to dark, by the square root of its share of ln 2.

ln 2 is the largest divergence. The ramp gets steadily darker from pale yellow to brown orange (as
ColorBrewer's YlOrBr without its dark end), so its order is clear to colour-blind readers and in
greyscale. Black text is legible on all of it.
"""

from __future__ import annotations

from math import log, sqrt

MAX_JS = log(2.0)  # nats: two distributions without a token in common
NUM_SHADES = 64
LEGEND = (0.0, 0.001, 0.01, 0.05, 0.1, 0.2, 0.4, MAX_JS)  # nats
_STOPS = (
    (255, 255, 232),
    (255, 245, 184),
    (254, 222, 134),
    (254, 188, 74),
    (247, 147, 42),
    (228, 108, 24),
)


def shade(js: float) -> int:
    """The step of the ramp, 0 to NUM_SHADES - 1, for a divergence in nats."""
    return round(sqrt(min(max(js, 0.0) / MAX_JS, 1.0)) * (NUM_SHADES - 1))


def palette() -> list[str]:
    """The colours of all shades, as #rrggbb."""
    return [_mix(step / (NUM_SHADES - 1) * (len(_STOPS) - 1)) for step in range(NUM_SHADES)]


def _mix(position: float) -> str:
    """The colour at a position between two stops."""
    low = min(int(position), len(_STOPS) - 2)
    stops = zip(_STOPS[low], _STOPS[low + 1], strict=True)
    return "#" + "".join(f"{round(a + (b - a) * (position - low)):02x}" for a, b in stops)
