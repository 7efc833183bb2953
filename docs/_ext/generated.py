"""Tables that are made from the code when the site is built, so that they cannot drift from it.

```{options}``` lists the fields of RunConfig, a section for each panel; ```{columns} TOKENS``` the
columns of a table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from sphinx.application import Sphinx

_TYPES: dict[Any, str] = {str: "text", int: "whole number", float: "number", Path: "path"}
_SHAPES = {
    "window": "`START:STOP`",
    "shard": "`K/N`",
    "match": "run directory",
    "verbose": "may stand twice",
    **dict.fromkeys(("engine_arg", "base_engine_arg", "rl_engine_arg"), "`KEY=VALUE`"),
}
_LITERAL = re.compile(r"(`[^`]*`|(?<!\S)--[a-z][a-z-]*)")  # code, and an option in a sentence
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class Options(SphinxDirective):
    """A section for each panel of RunConfig's options: option, value, default, meaning."""

    def run(self) -> list[nodes.Node]:
        from engine.config.run_config import PANELS, RunConfig

        fields = RunConfig.model_fields
        if unlisted := fields.keys() - {name for names in PANELS.values() for name in names}:
            raise ExtensionError(f"PANELS lacks the fields {', '.join(sorted(unlisted))}")
        return [
            self._section(title, {name: fields[name] for name in names})
            for title, names in PANELS.items()
        ]

    def _section(self, title: str, fields: dict[str, FieldInfo]) -> nodes.section:
        rows = [
            (_flags(name, field), _values(name, field), _default(field), field.description or "")
            for name, field in fields.items()
        ]
        table = _table(("option", "value", "default", "meaning"), (22, 22, 14, 42), rows)
        section = nodes.section(
            "", nodes.title(title, title), table, ids=[nodes.make_id(title)], names=[title.lower()]
        )
        self.state.document.note_implicit_target(section, section)
        return section


class Columns(SphinxDirective):
    """The columns of one table of a run directory: name, type, unit, meaning."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        try:
            from engine.store import schema
        except ModuleNotFoundError as error:
            if error.name != "pyarrow":
                raise
            text = "This table is made when the site is built with pyarrow installed."
            return [nodes.paragraph("", text)]
        rows = [
            (
                f"`{field.name}`",
                _arrow_type(field),
                _metadata(field, b"unit"),
                _metadata(field, b"meaning"),
            )
            for field in getattr(schema, self.arguments[0])
        ]
        return [_table(("column", "type", "unit", "meaning"), (22, 16, 18, 44), rows)]


def _flags(name: str, field: FieldInfo) -> str:
    flag = name.replace("_", "-")
    if name == "verbose":
        return "`-v`, `--verbose`"
    return f"`--{flag}` `--no-{flag}`" if _kind(field) is bool else f"`--{flag}`"


def _values(name: str, field: FieldInfo) -> str:
    kind = _kind(field)
    if get_origin(kind) is Literal:
        return " ".join(f"`{value}`" for value in get_args(kind))
    if kind is bool:
        return "yes or no"
    shape = _SHAPES.get(name) or ("`N` or `N,M,...`" if get_origin(kind) is tuple else _TYPES[kind])
    bounds = [
        f"{words} {_number(bound)}"
        for part in field.metadata
        for key, words in _BOUNDS.items()
        if name != "verbose" and (bound := getattr(part, key, None)) is not None
    ]
    return ", ".join([shape, *bounds])


def _number(bound: float) -> str:
    return "2^63" if bound == 2**63 else f"{bound:g}"


def _default(field: FieldInfo) -> str:
    if field.default in (None, False, ()):
        return "no" if field.default is False else ""
    if isinstance(field.default, tuple):
        return f"`{','.join(map(str, field.default))}`"
    return f"`{field.default}`"


def _kind(field: FieldInfo) -> Any:
    """The type of a field without `| None`."""
    if get_origin(field.annotation) not in (Union, UnionType):
        return field.annotation
    (kind,) = (kind for kind in get_args(field.annotation) if kind is not NoneType)
    return kind


def _arrow_type(field: Any) -> str:
    text = str(field.type).replace("<element: ", "<")
    return f"`{text}`, or null" if field.nullable else f"`{text}`"


def _metadata(field: Any, key: bytes) -> str:
    return str((field.metadata or {}).get(key, b"").decode())


def _table(
    heads: Sequence[str], widths: Sequence[int], rows: Sequence[Sequence[str]]
) -> nodes.table:
    """A table of cells in which `text` and --options are literal."""
    group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(heads))
    group += nodes.thead("", _row(heads))
    group += nodes.tbody("", *map(_row, rows))
    return nodes.table("", group, classes=["generated"])


def _row(cells: Sequence[str]) -> nodes.row:
    return nodes.row(
        "", *(nodes.entry("", nodes.paragraph("", "", *_inline(cell))) for cell in cells)
    )


def _inline(text: str) -> list[nodes.Node]:
    pieces = enumerate(_LITERAL.split(text))
    return [
        _literal(piece.strip("`")) if place % 2 else nodes.Text(piece)
        for place, piece in pieces
        if piece
    ]


def _literal(text: str) -> nodes.literal:
    return nodes.literal(text, text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("options", Options)
    app.add_directive("columns", Columns)
    # A build that reads one page only must not keep tables of older code.
    app.connect("env-get-outdated", lambda *_: ["reference/options", "data-format"])
    return {"parallel_read_safe": True, "parallel_write_safe": True}
