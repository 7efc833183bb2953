"""The cutoffs of js for low and high divergence, in nats, and their conditions in SQL."""

NEAR_ZERO = 0.01
"""A position with js up to this is near zero: our choice, as arXiv 2603.22446 names no value."""
HIGH_DIVERGENCE = 0.1
"""A position with js above this is of high divergence: section 4 of arXiv 2603.22446."""

# js is float32 and a bare number in SQL a decimal: as in NumPy and Arrow, both are compared as
# double.
IS_NEAR_ZERO = f"js <= {NEAR_ZERO}::DOUBLE"
IS_HIGH = f"js > {HIGH_DIVERGENCE}::DOUBLE"
