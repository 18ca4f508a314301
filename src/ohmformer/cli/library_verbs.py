"""The verbs that look things up in the library: list, show and schema."""

from __future__ import annotations

from typing import Annotated

import typer

from ohmformer.cli.output import show, tell, write


def list_entries(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="List only entries of this kind (study, costs, accelerator, array, cell, shapes, model or task), or "
            "the kinds of a family, such as write_noise.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """List the library: studies, accelerators, arrays, cells, shapes of models, bundled models and tasks."""
    from ohmformer.report.library import left_out, list_table

    show(list_table(kind))
    for message in left_out(kind):
        tell(f"left out: {message}")


def show_entry(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A library entry, or a .toml file.")],
    sources: Annotated[
        bool, typer.Option("--sources", help="Also show the place in each source, and how the value was derived.")
    ] = False,
) -> None:
    """Show all values of a library entry or file, with their units and sources."""
    from ohmformer.report.library import show_tables

    for table in show_tables(name, sources=sources):
        show(table)


def schema(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="Kind of file: study, costs, accelerator, array, cell, shapes or results."),
    ] = "study",
) -> None:
    """Print the JSON Schema of a kind of file, with which editors check the file while you type."""
    import json

    from ohmformer.report.json_schema import file_schema

    write(json.dumps(file_schema(kind), indent=2) + "\n", "-")
