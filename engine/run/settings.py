"""Where the settings of a run come from: options over a YAML file over those of a run that it is to
be like.

What they are is `config`'s matter. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from engine.config.inheritance import MATCHED, NOT_SCORED
from engine.config.run_config import RunConfig
from engine.errors import ConfigError, RunDirectoryError, StoreError

MAX_CONFIG_BYTES = 1 << 16
_MAX_SHOWN, _MAX_MESSAGE = (
    200,
    600,
)  # characters of a value, and of what is said of it, which may quote it again


def load(
    file: Path | None, overrides: dict[str, Any], beneath: dict[str, Any] | None = None
) -> RunConfig:
    """`beneath`, then `file` (YAML, may be None), then `overrides`, each over the one before.
    Raises ConfigError.

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


def load_for_score(
    file: Path | None, overrides: dict[str, Any], beneath: dict[str, Any] | None = None
) -> RunConfig:
    """The settings of `xsample score`: as `load`, without those that say how responses are made.

    Raises:
        ConfigError: One of these is given, or as `load`.
    """
    config = load(file, overrides, beneath)
    for name in NOT_SCORED:
        if name in config.model_fields_set:
            where = f"{file}: " if file else ""
            raise ConfigError(
                f"{where}{name} is {str(getattr(config, name))!r}, but says how responses are made,"
                f" which are given here: leave {name} out"
            )
    return config


def _matched_settings(match: object) -> dict[str, Any]:
    """What a control takes over from the run that it matches; nothing where `match` is not even a
    path.
    """
    if not isinstance(match, (str, Path)):
        return {}
    try:
        return settings_of(Path(match), MATCHED)
    except RunDirectoryError as error:
        raise ConfigError(f"match is {str(match)!r}: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """YAML without what no configuration needs: aliases, which a few lines expand beyond any
    memory, and keys twice.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            alias = self.peek_event()
            raise yaml.MarkedYAMLError(
                problem=f"aliases (*{alias.anchor}) are not read", problem_mark=alias.start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if isinstance(key.value, str)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise yaml.MarkedYAMLError(
                problem=f"key {twice!r} is there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    text = _read_text(file)
    try:
        values = yaml.load(text, _Loader)
        named = (
            {str(key): value for key, value in values.items()}
            if isinstance(values, dict)
            else values
        )
    except Exception as error:  # YAML's constructors raise anything: 2001-99-99, !!int x
        hint = (
            "; a window is written in quotes, window: '32:'"
            if "mapping values" in str(error)
            else ""
        )
        raise ConfigError(
            f"config {file} is not YAML: {' '.join(str(error).split())}{hint}"
        ) from None
    if named is None:
        return {}
    if not isinstance(named, dict):
        raise ConfigError(
            f"config {file} holds a {type(named).__name__}: it must be keys and values (key: value)"
        )
    return named


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as opened:  # no more than that of what may have no end
            content = opened.read(MAX_CONFIG_BYTES + 1)
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"config {file} does not exist") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"config {file} cannot be read: {error}") from None
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"config {file} is longer than {MAX_CONFIG_BYTES:,} bytes: no configuration is"
        )
    return text


def _explain(error: Any) -> str:
    message = _cut(error["msg"].removeprefix("Value error, "), _MAX_MESSAGE)
    if not error["loc"]:
        return message
    stated = f"{error['loc'][0]} is {_shown(error['input'])}: {message[0].lower()}{message[1:]}"
    if error["type"] == "float_type" and isinstance(error["input"], str):
        stated += " (YAML takes 1e-3 for text: write 0.001 or 1.0e-3)"
    return stated


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not write out a number of thousands of digits
        return f"a {type(value).__name__} of more digits than anyone reads"
    return _cut(text, _MAX_SHOWN)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


_WAY_OUT = "give the --out folder of an `xsample run`"


def settings_of(run: Path, names: Iterable[str]) -> dict[str, Any]:
    """Those of `names` that the run directory `run` was made with; what was left out and has no
    value stays out.

    Raises RunDirectoryError where `run` is no run directory, or holds a value that RunConfig would
    not take.
    """
    stored = _stored_settings(run)
    settings = {name: stored[name] for name in names if stored.get(name) is not None}
    try:
        RunConfig(**settings)
    except ValidationError as error:
        # Without a place it is about settings that do not go together, and `names` may be a part of
        # them only.
        for wrong in (e for e in error.errors(include_url=False) if e["loc"]):
            name = wrong["loc"][0]
            raise RunDirectoryError(
                f"{run}/run.json: {name} is {wrong['input']!r:.200}, which no run has: {_WAY_OUT}"
            ) from None
    return settings


def _stored_settings(run: Path) -> dict[str, Any]:
    from engine.store.run_reader import read_run

    try:
        stored = read_run(run).manifest.get("config")
    except StoreError as error:
        raise RunDirectoryError(f"{error}: {_WAY_OUT}") from None
    if not isinstance(stored, dict):
        raise RunDirectoryError(f"{run}/run.json holds no settings: {_WAY_OUT}")
    return stored
