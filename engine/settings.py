"""Where the settings of a run come from: options over a YAML file over those of a run that it is to be like.

What they are is `config`'s matter. Imports nothing heavy.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from engine.config import RunConfig
from engine.errors import ConfigError, RunDirectoryError
from engine.inherit import MATCHED, settings_of


def load(file: Path | None, overrides: dict[str, Any], beneath: dict[str, Any] | None = None) -> RunConfig:
    """`beneath`, then `file` (YAML, may be None), then `overrides`, each over the one before. Raises ConfigError.

    Where they say `match`, the settings of that run lie beneath all of them.
    """
    given = {**(_read_yaml(file) if file else {}), **overrides}
    for key in given:
        if key not in RunConfig.model_fields:
            near = get_close_matches(str(key), RunConfig.model_fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            where = f"{file}: " if file and key not in overrides else ""
            raise ConfigError(f"{where}unknown key {key!r}{hint}")
    values = {**(beneath or {}), **given}
    try:
        return RunConfig(**{**_matched_settings(values.get("match")), **values})
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e) for e in error.errors(include_url=False))) from None


def _matched_settings(match: object) -> dict[str, Any]:
    """What a control takes over from the run that it matches; nothing where `match` is not even a path."""
    if not isinstance(match, (str, Path)):
        return {}
    try:
        return settings_of(Path(match), MATCHED)
    except RunDirectoryError as error:
        raise ConfigError(f"match is {str(match)!r}: {' '.join(str(error).split())}") from None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"config {file} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {file} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        hint = "; a window is written in quotes, window: '32:'" if "mapping values" in str(error) else ""
        raise ConfigError(f"config {file} is not YAML: {' '.join(str(error).split())}{hint}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"config {file} holds a {type(values).__name__}: it must be keys and values (key: value)")
    return {str(key): value for key, value in values.items()}


def _explain(error: Any) -> str:
    message = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:
        return str(message)
    stated = f"{error['loc'][0]} is {error['input']!r}: {message[0].lower()}{message[1:]}"
    if error["type"] == "float_type" and isinstance(error["input"], str):
        stated += " (YAML takes 1e-3 for text: write 0.001 or 1.0e-3)"
    return stated
