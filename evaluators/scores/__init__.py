"""The numbers of a run: accuracy, pass@k, intervals, divergence, by arm."""
