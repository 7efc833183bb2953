"""Which settings one run takes over from another that it is to be like. Imports nothing."""

# Of the run that a control matches: all that decides or records the numbers, but not what is to
# differ (criterion, threshold), nor where and how fast it runs, nor leave to run a model's own
# code.
MATCHED = (
    "base", "rl", "task", "task_data", "question_column", "answer_column", "id_column", "prompt",
    "prompt_template", "grader", "limit", "samples", "direction", "budget", "window", "eos",
    "extrapolate", "extrapolate_to", "temperature", "top_p", "top_k", "max_tokens", "seed", "trace",
    "record_threshold", "record_top_k", "dtype",
)  # fmt: skip
# Of the run whose responses are scored: all that decides the numbers, and nothing of where the run
# is made and how fast.
SCORED = (
    "base", "rl", "temperature", "top_p", "top_k", "record_threshold", "record_top_k", "dtype",
)  # fmt: skip
# Settings that say how responses are made: those that are scored are there already.
NOT_SCORED = (
    "match", "limit", "samples", "direction", "budget", "criterion", "threshold", "window", "eos",
    "extrapolate", "extrapolate_to", "trace", "max_tokens", "seed",
)  # fmt: skip
