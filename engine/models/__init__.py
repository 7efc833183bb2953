"""Models before they are loaded: a checkpoint, a pair, prompts, memory."""
