"""xsample: which token decisions make an RL-tuned model better than its base?

The one import that is documented. Make a run, look at it, put it into tables:

    >>> import xsample
    >>> run = xsample.run(direction="reverse", budget=8, out="runs/first")
    >>> run.curve().to_pandas()
    >>> run.tokens(["js", "intervened", "effective"])
    >>> run.report()

`run` takes the settings of `xsample run` as keywords. `prepare` checks them and starts nothing,
`open_run` opens what an earlier session has made, `score` measures responses from elsewhere. Errors
are those of the command: a `UsageError` names the setting, its value and the way out.

Importing this package imports neither torch nor vLLM, Ray or PyArrow; they come with their use.
"""

from engine.errors import (
    ConfigError,
    EngineError,
    GivenUpError,
    IncompleteRunError,
    LockstepError,
    LostEngineError,
    ModelError,
    RunDirectoryError,
    StoreError,
    TaskError,
    UsageError,
    XsampleError,
)
from xsample.api import load_config, open_run, prepare, report, run, score, tasks
from xsample.results import Run

__version__ = "0.2.0"

__all__ = [
    "ConfigError",
    "EngineError",
    "GivenUpError",
    "IncompleteRunError",
    "LockstepError",
    "LostEngineError",
    "ModelError",
    "Run",
    "RunDirectoryError",
    "StoreError",
    "TaskError",
    "UsageError",
    "XsampleError",
    "load_config",
    "open_run",
    "prepare",
    "report",
    "run",
    "score",
    "tasks",
]
