"""The one way into the `datasets` library, which keeps its output away from the terminal."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType


@contextmanager
def quiet_datasets() -> Iterator[ModuleType]:
    """Import `datasets`, without progress bars, log lines or warnings while the block lasts.

    Logging is disabled for the whole process meanwhile.

    Yields:
        The imported library.
    """
    with ExitStack() as restore, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        restore.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)
        import datasets
        from huggingface_hub import utils as hub

        for library in (datasets, hub):
            if not library.are_progress_bars_disabled():
                library.disable_progress_bars()
                restore.callback(library.enable_progress_bars)
        yield datasets
