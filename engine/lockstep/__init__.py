"""A pair of vLLM engines in lock-step: placed, loaded, connected, and given work."""
