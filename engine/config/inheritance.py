"""Which settings a run inherits from another run, as tuples of names; imports nothing."""

INHERITED_BY_CONTROL = (
    "base", "rl", "task", "task_data", "question_column", "answer_column", "id_column", "prompt",
    "prompt_template", "grader", "limit", "samples", "direction", "budget", "window", "eos",
    "extrapolate", "extrapolate_to", "temperature", "top_p", "top_k", "max_tokens", "seed", "trace",
    "record_threshold", "record_top_k", "dtype", "engine_arg", "base_engine_arg", "rl_engine_arg",
)  # fmt: skip
"""What a control inherits from the run that it matches: all that decides or records the numbers.

Not the criterion and the threshold, in which the two runs differ; nor where and how fast a run is
made; nor the permission to run code of a model.
"""

INHERITED_BY_SCORE = (
    "base", "rl", "temperature", "top_p", "top_k", "record_threshold", "record_top_k", "dtype",
    "engine_arg", "base_engine_arg", "rl_engine_arg",
)  # fmt: skip
"""What `xsample score` inherits from the run whose responses it measures."""

REFUSED_BY_SCORE = (
    "match", "limit", "samples", "direction", "budget", "criterion", "threshold", "window", "eos",
    "extrapolate", "extrapolate_to", "trace", "max_tokens", "seed",
)  # fmt: skip
"""Settings that say how responses are made; `xsample score` makes none."""
