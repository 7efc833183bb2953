"""Every error that xsample raises on purpose, in one tree.

    XsampleError                   exit 1  the root: one clear line, no traceback
    ├── UsageError                 exit 2  what the user gave cannot be run as it is
    │   ├── ConfigError                    an option or a key of the configuration
    │   ├── TaskError                      a task set: not found, empty, malformed
    │   ├── ModelError                     a model folder, or two models that are no pair
    │   └── RunDirectoryError              an --out folder that cannot be used
    ├── StoreError                 exit 1  the run directory failed: disk full, unreadable part
    ├── EngineError                exit 1  an engine could not be started or died
    │   └── LostEngineError                it died or ran out of memory: a new start may help
    │       └── LockstepError              the two engines differ in their rows, or one is silent
    └── IncompleteRunError         exit 3  trajectories are missing; the run can be resumed
        └── GivenUpError           exit 4  those that are missing failed again and again

A message names the setting, its value and the way out. Any other exception that escapes is a bug.
"""


class XsampleError(Exception):
    """Root of the tree."""

    exit_code = 1
    """Exit status of the command."""


class UsageError(XsampleError):
    """What the user gave cannot be run as it is."""

    exit_code = 2


class ConfigError(UsageError):
    """An option, or a key of the configuration file, is wrong."""


class TaskError(UsageError):
    """A task set cannot be found, is empty, or has rows that make no sense."""


class ModelError(UsageError):
    """A model folder cannot be used, or the two models are not a pair."""


class RunDirectoryError(UsageError):
    """The --out folder is not a folder, not writable, or belongs to another run."""


class StoreError(XsampleError):
    """The run directory failed during the run; the message names the file."""


class EngineError(XsampleError):
    """An engine could not be started, or died."""


class LostEngineError(EngineError):
    """An engine died, ran out of memory or fell silent; a new start may help."""


class LockstepError(LostEngineError):
    """The engines of a pair disagree on sequence, position or previous token, or one is silent."""


class IncompleteRunError(XsampleError):
    """Trajectories are missing after all retries.

    Those that were committed stay, and the run can be resumed.
    """

    exit_code = 3


class GivenUpError(IncompleteRunError):
    """The missing trajectories were given up after they had failed again and again.

    All others are complete.
    """

    exit_code = 4


def first_line(error: BaseException) -> str:
    """The first line of an error's message that is not blank; its type where there is none."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)
