"""What "near zero" and "high" mean, in nats: the one place that says it."""

# a position at or below it is "near zero", of low divergence: arXiv 2603.22446 does not say; ours
NEAR_ZERO = 0.01
HIGH_DIVERGENCE = 0.1  # a position above it is of high divergence: section 4 of arXiv 2603.22446

# js is float32 and a bare number in SQL a decimal: both are compared as double, as NumPy and Arrow
# do.
IS_NEAR_ZERO = f"js <= {NEAR_ZERO}::DOUBLE"
IS_HIGH = f"js > {HIGH_DIVERGENCE}::DOUBLE"
