"""The settings of a run: what they are, and what is legal together."""
