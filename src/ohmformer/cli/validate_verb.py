"""The verb that compares the model with papers: validate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohmformer.cli.options import Json, Page
from ohmformer.cli.output import check_outputs, goes_to_stdout, show, write_document
from ohmformer.errors import BadInput


def validate(
    paper: Annotated[
        str, typer.Argument(metavar="PAPER", help="A paper of the library; by default all of them.", show_default=False)
    ] = "",
    json: Json = None,
    page: Page = None,
) -> None:
    """Compare the numbers that papers report with those of this model. Exit code 1 if a checked claim is missed.

    Without PAPER, it also writes docs/validation.md, the page of all papers, if the working directory has a folder
    docs.
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
