"""The colour of a divergence: light to dark on the square root of its share of ln 2, the largest
there is.

The ramp runs from pale yellow to brown orange in rising darkness (as ColorBrewer's YlOrBr without
its dark end), which colour-blind readers and greyscale prints keep in order; black text is legible
on all of it.
"""

from __future__ import annotations

from math import log, sqrt

MAX_JS = log(2.0)  # nats: of two distributions without a token in common
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
    """Step of the ramp, 0 to NUM_SHADES - 1, of a divergence in nats."""
    return round(sqrt(min(max(js, 0.0) / MAX_JS, 1.0)) * (NUM_SHADES - 1))


def palette() -> list[str]:
    """The colours of all shades, #rrggbb."""
    return [_mixed(step / (NUM_SHADES - 1) * (len(_STOPS) - 1)) for step in range(NUM_SHADES)]


def _mixed(place: float) -> str:
    """The colour between two stops."""
    low = min(int(place), len(_STOPS) - 2)
    mixed = (a + (b - a) * (place - low) for a, b in zip(_STOPS[low], _STOPS[low + 1], strict=True))
    return "#" + "".join(f"{round(value):02x}" for value in mixed)
