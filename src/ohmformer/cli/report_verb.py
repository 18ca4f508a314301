"""The verb that writes the page of a study from its stored results: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ohmformer.cli.options import Report, ReportFormat
from ohmformer.cli.output import check_writable, show, write
from ohmformer.errors import BadInput, shown, suggest

FORMATS = ("html", "md", "svg", "pdf")
FIGURES = ("svg", "pdf")
"""Formats of a folder of figures; the others are one file."""


def report(
    results: Annotated[
        str,
        typer.Argument(
            metavar="RUN", help="Folder of a run, file of results (.json), or name of a study that was run."
        ),
    ],
    output: Report = None,
    format: ReportFormat = "html",
) -> None:
    """Write the page of a study from its stored results: answer, charts, tables, hardware with sources, command.

    The page is one file that opens without a network. Nothing is computed anew.
    """
    if format not in FORMATS:
        raise BadInput(f"--format {shown(format)}: {suggest(format, list(FORMATS))}")
    place = output or ("figures" if format in FIGURES else f"report.{format}")
    if format in FIGURES:
        _check_folder(place)
    else:
        check_writable(place, "--output")
    from ohmformer.report.page.study_page import study_page
    from ohmformer.study.results.reading import read_results

    page = study_page(read_results(results))
    if format in FIGURES:
        from ohmformer.report.page.print_figure import save_charts
        from ohmformer.terminal.files import make_folder

        make_folder(Path(place))
        files = save_charts(page, Path(place), format)
        show(f"written to {place}: {', '.join(file.name for file in files) or 'nothing, since there are no charts'}")
        return
    if format == "md":
        from ohmformer.report.page.markdown_page import markdown_page

        text = markdown_page(page)
    else:
        from ohmformer.report.page.html_page import html_page

        text = html_page(page)
    write(text, place)
    if place != "-":
        show(f"written to {place}")


def _check_folder(place: str) -> None:
    """Refuse what cannot be a folder of figures."""
    from ohmformer.terminal.paths import check_folder

    if place == "-":
        raise BadInput("--output -: figures need a folder; give its path")
    check_folder("--output", Path(place))
