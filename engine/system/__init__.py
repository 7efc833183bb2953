"""What the machine offers a run: files, logs, signals, the screen, cores and memory."""
