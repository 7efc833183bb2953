"""Grading: from the text of a response to its verdict."""
