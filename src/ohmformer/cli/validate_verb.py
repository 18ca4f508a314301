"""The verb that compares the model with papers: validate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohmformer.cli.options import Json
from ohmformer.cli.output import check_outputs, goes_to_stdout, show, write_document
from ohmformer.errors import BadInput


def validate(
    paper: Annotated[str, typer.Argument(help="A paper of the library; all of them by default.")] = "",
    json: Json = None,
    page: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Where the page goes; default, for all papers: docs/validation.md, where docs is there.",
        ),
    ] = None,
) -> None:
    """What papers report, what the model gives, and whether they agree; exit code 1 where a checked claim is missed.

    Without PAPER it also writes the page of all papers, docs/validation.md, if the current folder has a folder docs.
    """
    from ohmformer.validation.claims import check, claims_document, papers
    from ohmformer.validation.page import claims_table, failures, write_page

    check_outputs(json=json, page=page)
    if page == "-":
        raise BadInput("--page -: give the path of a file; --json - writes the claims to standard output")
    checked = [check(name) for name in ([paper] if paper else papers())]
    for each in checked:
        show(claims_table(each), to_stderr=goes_to_stdout(json))
    write_document(claims_document(checked), json)
    sentences = [write_page(checked, Path(page) if page else None, every=not paper), failed := failures(checked)]
    for sentence in filter(None, sentences):
        show(sentence, to_stderr=goes_to_stdout(json))
    if failed:
        raise typer.Exit(1)
