"""The fields of RunConfig as options of a command: their names, types, defaults and help.

RunConfig is imported only when such a command runs or shows its help, so that the other commands
start without it.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import click

from xsample.cli.panels import PanelCommand, option_panels

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_METAVARS: dict[Any, str] = {
    str: "TEXT", int: "N", float: "X", Path: "FOLDER", "match": "RUN", "prompt_template": "FILE",
    "window": "START:STOP"
}  # fmt: skip
_MAX_METAVAR = 28  # characters
_TYPED_ARGUMENTS = "xsample.cli.options.typed_arguments"  # a key of click's ctx.meta


class ConfigCommand(PanelCommand):
    """A command whose options are the fields of RunConfig, and its own.

    Args:
        *args: As of click.Command.
        leave_out: Fields that are no options of this command.
        **kwargs: As of click.Command.
    """

    def __init__(self, *args: Any, leave_out: Collection[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._leave_out = frozenset(leave_out)

    @cached_property
    def _config_options(self) -> list[click.Parameter]:
        from engine.config.run_config import RunConfig

        return [
            _option(name, field)
            for name, field in RunConfig.model_fields.items()
            if name not in self._leave_out
        ]

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*self._config_options, *super().get_params(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options in panels: those of RunConfig by subject, then the command's own."""
        from engine.config.run_config import PANELS

        offered = {option.name for option in self._config_options}
        panels = {
            title: [name for name in names if name in offered] for title, names in PANELS.items()
        }
        self.panels = option_panels({title: names for title, names in panels.items() if names})
        super().format_options(ctx, formatter)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_TYPED_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


def _option(name: str, field: FieldInfo) -> click.Option:
    """The option of one field of RunConfig, which checks the ranges of files and options alike."""
    flag = "--" + name.replace("_", "-")
    help_text = field.description or ""
    if field.default not in (None, False, ()):
        help_text += f" [default: {_format_default(field.default)}]"
    kind = _strip_none(field.annotation)
    if name == "verbose":
        return click.Option(["-v", flag, name], count=True, help=field.description)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        # A long list of choices would break inside its words in the narrow column of metavars.
        metavar = None if len("|".join(choices)) <= _MAX_METAVAR else name.upper()
        if metavar:
            help_text += f" [one of: {', '.join(choices)}]"
        return click.Option(
            [flag, name], type=click.Choice(choices), metavar=metavar, help=help_text
        )
    if kind is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=help_text)
    if get_args(kind)[:1] == (str,):
        return click.Option([flag, name], metavar="KEY=VALUE", multiple=True, help=help_text)
    if get_origin(kind) is tuple:
        return click.Option([flag, name], metavar="N[,M...]", help=help_text)
    return click.Option(
        [flag, name], type=kind, metavar=_METAVARS.get(name) or _METAVARS[kind], help=help_text
    )


def _strip_none(annotation: Any) -> Any:
    """`int | None` -> int."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    (kind,) = (kind for kind in get_args(annotation) if kind is not NoneType)
    return kind


def _format_default(default: Any) -> str:
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)


def typed_settings(ctx: click.Context) -> dict[str, Any]:
    """The settings that the user typed as options; a default must not override the file."""
    from engine.config.run_config import RunConfig

    command_line = click.core.ParameterSource.COMMANDLINE
    return {
        name: ctx.params[name]
        for name in RunConfig.model_fields
        if ctx.get_parameter_source(name) is command_line
    }


def typed_arguments(ctx: click.Context) -> list[str]:
    """What the user typed after the name of the command."""
    arguments: list[str] = ctx.meta[_TYPED_ARGUMENTS]
    return arguments
