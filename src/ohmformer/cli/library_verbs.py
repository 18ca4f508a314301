"""The verbs that look things up: list, show and schema."""

from __future__ import annotations

from typing import Annotated

import typer

from ohmformer.cli.output import show, write


def list_entries(
    kind: Annotated[str, typer.Argument(help="Only this kind, or a family such as write_noise.")] = "",
) -> None:
    """What the library holds: studies, accelerators, arrays, cells, shapes of models, bundled models and tasks."""
    from ohmformer.report.library import list_table

    show(list_table(kind))


def show_entry(
    name: Annotated[str, typer.Argument(help="A library entry, or a .toml file.")],
    sources: Annotated[bool, typer.Option("--sources", help="Also say where in the source, and how derived.")] = False,
) -> None:
    """Every value of an entry, with its unit and where it comes from."""
    from ohmformer.report.library import show_tables

    for table in show_tables(name, sources=sources):
        show(table)


def schema(
    kind: Annotated[str, typer.Argument(help="study, costs, accelerator, array, cell, shapes or results.")] = "study",
) -> None:
    """The JSON Schema of a kind of file, for editors that check while one types."""
    import json

    from ohmformer.report.json_schema import file_schema

    write(json.dumps(file_schema(kind), indent=2) + "\n", "-")
