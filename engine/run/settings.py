"""Where the settings of a run come from.

In order of precedence: what the user typed (options of a command, or keywords in Python), a YAML
file, and the settings of an earlier run that this one inherits. What a setting means, and which
values it takes, is in `engine.config`. Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from engine.config.inheritance import INHERITED_BY_CONTROL, REFUSED_BY_SCORE
from engine.config.run_config import RunConfig
from engine.errors import ConfigError, RunDirectoryError, StoreError

MAX_CONFIG_BYTES = 1 << 16
_MAX_VALUE = 200  # characters of a value in a message
_MAX_MESSAGE = 600  # characters of a message, which may quote the value again
_WAY_OUT = "give the --out folder of an `xsample run`"


def load(
    file: Path | None, typed: dict[str, Any], inherited: dict[str, Any] | None = None
) -> RunConfig:
    """Load the settings of a run.

    If they contain `match`, the settings of the matched run are inherited too, below all others.

    Args:
        file: A YAML file of settings.
        typed: Settings that the user typed; they override the file.
        inherited: Settings of an earlier run; the file overrides them.

    Raises:
        ConfigError: The file cannot be read, or a setting is unknown or has an impossible value.
    """
    user_settings = {**(_read_yaml(file) if file else {}), **typed}
    for key in user_settings:
        if key not in RunConfig.model_fields:
            similar = get_close_matches(str(key), RunConfig.model_fields, n=1)
            hint = f"; did you mean {similar[0]!r}?" if similar else ""
            origin = f"{file}: " if file and key not in typed else ""
            raise ConfigError(f"{origin}unknown key {key!r}{hint}")
    settings = {**(inherited or {}), **user_settings}
    try:
        return RunConfig(**{**_control_settings(settings.get("match")), **settings})
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e) for e in error.errors(include_url=False))) from None


def load_for_score(
    file: Path | None, typed: dict[str, Any], inherited: dict[str, Any] | None = None
) -> RunConfig:
    """Load the settings of `xsample score`, as `load` does.

    Raises:
        ConfigError: As `load` raises it, or a setting says how responses are made.
    """
    config = load(file, typed, inherited)
    for name in REFUSED_BY_SCORE:
        if name in config.model_fields_set:
            origin = f"{file}: " if file else ""
            raise ConfigError(
                f"{origin}{name} is {str(getattr(config, name))!r}, but says how responses are"
                f" made, which are given here: leave {name} out"
            )
    return config


def _control_settings(match: object) -> dict[str, Any]:
    """What a control inherits from the run that it matches."""
    if not isinstance(match, (str, Path)):
        return {}  # RunConfig refuses it
    try:
        return settings_of(Path(match), INHERITED_BY_CONTROL)
    except RunDirectoryError as error:
        raise ConfigError(f"match is {str(match)!r}: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """YAML without two things that no configuration needs: aliases, and keys that occur twice.

    A few lines of aliases expand to more than fits into memory.
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
        if double := next((name for name in names if names.count(name) > 1), None):
            raise yaml.MarkedYAMLError(
                problem=f"key {double!r} is there twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


def _read_yaml(file: Path) -> dict[str, Any]:
    text = _read_text(file)
    try:
        content = yaml.load(text, _Loader)
        if isinstance(content, dict):
            return {str(key): value for key, value in content.items()}
    except Exception as error:  # YAML's constructors raise anything: 2001-99-99, !!int x
        hint = ""
        if "mapping values" in str(error):
            hint = "; a window is written in quotes, window: '32:'"
        raise ConfigError(
            f"config {file} is not YAML: {' '.join(str(error).split())}{hint}"
        ) from None
    if content is None:
        return {}
    raise ConfigError(
        f"config {file} holds a {type(content).__name__}: it must be keys and values (key: value)"
    )


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as stream:  # a bounded read: a device has no end
            content = stream.read(MAX_CONFIG_BYTES + 1)
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
    """One line for an error of pydantic: the setting, its value, and what is wrong with it."""
    message = _cut(error["msg"].removeprefix("Value error, "), _MAX_MESSAGE)
    if not error["loc"]:
        return message
    value = _format_value(error["input"])
    line = f"{error['loc'][0]} is {value}: {message[0].lower()}{message[1:]}"
    if error["type"] == "float_type" and isinstance(error["input"], str):
        line += " (YAML takes 1e-3 for text: write 0.001 or 1.0e-3)"
    return line


def _format_value(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python refuses to write out a number of thousands of digits
        return f"a {type(value).__name__} of more digits than anyone reads"
    return _cut(text, _MAX_VALUE)


def _cut(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[:max_length]}..."


def settings_of(run: Path, names: Iterable[str]) -> dict[str, Any]:
    """Some of the settings that a run was made with.

    Args:
        run: The run directory.
        names: The settings to read.

    Returns:
        Their values, without settings that have none.

    Raises:
        RunDirectoryError: `run` is no run directory, or holds a value that RunConfig refuses.
    """
    stored = _stored_settings(run)
    settings = {name: stored[name] for name in names if stored.get(name) is not None}
    try:
        RunConfig(**settings)
    except ValidationError as error:
        # An error without a place is about settings that do not go together, and `names` may be
        # only some of these.
        for fault in (e for e in error.errors(include_url=False) if e["loc"]):
            name = fault["loc"][0]
            raise RunDirectoryError(
                f"{run}/run.json: {name} is {fault['input']!r:.200}, which no run has: {_WAY_OUT}"
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
