"""From a response to its verdict."""
