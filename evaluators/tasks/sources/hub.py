"""Rows of a data set on the Hugging Face hub, read through the `datasets` library and its cache.

Only data is loaded: the library runs no code of a data set. A cached set is read without a network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import TaskError
from evaluators.tasks.sources.quiet import quiet_datasets
from evaluators.tasks.sources.rows import (
    Reading,
    Row,
    error_line,
    number_rows,
    root_cause,
    select_test_split,
)

# For CSV: by default the cell "None", which may be an option of a question, reads as missing.
_AS_WRITTEN = {"keep_default_na": False}


def read_hub(hub_id: str, subset: str | None, local_copy: str) -> Reading:
    """The rows of one configuration of a hub set, or of all of them.

    Args:
        hub_id: `org/name`.
        subset: The configuration; all when None.
        local_copy: How a local copy is given instead, in words, for messages.

    Raises:
        TaskError: The set is gated, missing or out of reach.
    """
    tables: list[list[Row]] = []
    notes: list[str] = []
    with quiet_datasets() as datasets, _raise_task_errors(hub_id, local_copy):
        for config in [subset] if subset else _configs(datasets, hub_id):
            label = hub_id if config == "default" else f"{hub_id} ({config})"
            splits = _load(datasets, hub_id, config)
            selected, split_notes = select_test_split(list(splits), str, label)
            tables += [number_rows(splits[split], f"{label}, split {split}") for split in selected]
            notes += split_notes
    return Reading(tables, notes)


def _load(datasets: ModuleType, hub_id: str, config: str) -> Any:
    """The splits of a configuration by name."""
    try:
        builder = datasets.load_dataset_builder(hub_id, config)
        is_csv = hasattr(builder.config, "keep_default_na")
    except ValueError:  # no network, and the cache holds only the set read with _AS_WRITTEN
        is_csv = True
    if is_csv:
        builder = datasets.load_dataset_builder(hub_id, config, **_AS_WRITTEN)
    builder.download_and_prepare()
    return builder.as_dataset()


def _configs(datasets: ModuleType, hub_id: str) -> list[str]:
    """Names of the configurations on the hub or, offline, in the cache."""
    if datasets.config.HF_HUB_OFFLINE:
        organisation, name = hub_id.split("/")
        folder = f"{organisation}___{datasets.naming.camelcase_to_snakecase(name)}"
        cached = Path(datasets.config.HF_DATASETS_CACHE).expanduser().glob(f"{folder}/*/")
        if names := {path.name.removesuffix("-keep_default_na=False") for path in cached}:
            return sorted(names)
    return list(datasets.get_dataset_config_names(hub_id))


@contextmanager
def _raise_task_errors(hub_id: str, local_copy: str) -> Iterator[None]:
    """Boundary to the library and the network: turn any exception into a TaskError."""
    try:
        yield
    except Exception as error:
        raise TaskError(
            f"{hub_id} cannot be loaded from the Hugging Face hub (nor is it a file or folder"
            f" here): {_reason(hub_id, error)}; a local copy is read with {local_copy}"
        ) from error


def _reason(hub_id: str, error: BaseException) -> str:
    """Why a set cannot be loaded, from the exception's message and the names of its classes."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if "GatedRepoError" in kinds or re.search(r"gated (dataset|repo)", text):
        return (
            f"it is gated: accept its conditions on its page there (datasets/{hub_id}) and log in"
            " (`hf auth login`)"
        )
    if "OfflineModeIsEnabled" in {*kinds, *re.findall(r"\w+", text)}:
        return "HF_HUB_OFFLINE is set, and the cache does not hold it"
    if kinds & {
        "ConnectionError",
        "ConnectError",
        "TimeoutException",
        "ConnectTimeout",
        "ReadTimeout",
    }:
        return "there is no connection to it, and the cache does not hold it"
    if kinds & {"DatasetNotFoundError", "RepositoryNotFoundError"}:
        return "it is not there, or it is private and you are not logged in (`hf auth login`)"
    return error_line(root_cause(error))
