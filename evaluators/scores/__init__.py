"""The numbers of a run: accuracy, pass@k, confidence intervals and divergence of every arm."""
