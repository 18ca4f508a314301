"""The verbs that look things up in the library: list, show, cite and schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohmformer.cli.completion import entry_names
from ohmformer.cli.options import CitationFormat, CiteFormat, SchemaFolder, Sets, StudyName
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
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A library entry, or a .toml file.", autocompletion=entry_names)
    ],
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
    folder: SchemaFolder = None,
) -> None:
    """Print the JSON Schema of a kind of file, with which editors check the file while you type."""
    import json

    from ohmformer.report.json_schema import file_schema
    from ohmformer.report.library import SPECS

    if folder is None:
        write(json.dumps(file_schema(kind), indent=2) + "\n", "-")
        return
    from ohmformer.terminal.files import make_folder

    make_folder(Path(folder))
    for each in ("study", "costs", *SPECS, "results"):
        write(json.dumps(file_schema(each)) + "\n", str(Path(folder, f"{each}.schema.json")))
    show(f"schemas written to {folder}; the first line of a study: #:schema {Path(folder, 'study.schema.json')}")


def cite(study: StudyName, sets: Sets = None, form: CiteFormat = CitationFormat.bibtex) -> None:
    """Print the references of everything a study rests on: sources of numbers, methods, model, data, this program."""
    from ohmformer.report.citations.cited import references

    text, unknown = references(study, sets or [], form.value)
    write(text, "-")
    for line in unknown:
        tell(line)
