"""The verbs on cells: device fit and device require."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ohmformer.cli.options import (
    CellFigure,
    CellFile,
    Cluster,
    Grid,
    Json,
    Kinds,
    Loss,
    On,
    Out,
    Pair,
    Python,
    Quantities,
    Resume,
    Sets,
    Step,
    StudyName,
    Workers,
)
from ohmformer.cli.output import (
    check_outputs,
    check_writable,
    goes_to_stdout,
    results_folder,
    show,
    write,
    write_document,
    write_files,
)
from ohmformer.cli.stopping import Verbs, stopping
from ohmformer.terminal.signals import GO_ON

if TYPE_CHECKING:
    from ohmformer.study.results.requirements import Requirements

device = typer.Typer(
    cls=Verbs,
    help="Make cells from measurements, and find out how good cells must be.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@device.callback()
def _root() -> None:
    """Make cells from measurements, and find out how good cells must be."""


@device.command("fit")
def fit(
    csv: Annotated[
        str,
        typer.Argument(
            metavar="CSV",
            help="Measurements: columns target and measured, with units as in 'target [uS]'; optional are time, "
            "cycle and cell.",
        ),
    ],
    output: CellFile = None,
    figure: CellFigure = None,
) -> None:
    """Fit a cell to measured conductances: its range, write noise, drift and endurance."""
    check_outputs(output=output, figure=figure)
    from ohmformer.fitting.fit import fit_cell
    from ohmformer.report.cell_fit import candidates_table, check_figure, save_cell_figure, sentences

    check_figure(figure)
    found = fit_cell(csv)
    to_stderr = goes_to_stdout(output)
    show(candidates_table(found), to_stderr=to_stderr)
    for sentence in sentences(found):
        show(sentence, to_stderr=to_stderr)
    if figure is not None:
        save_cell_figure(found, figure)
        show(f"written to {figure}", to_stderr=to_stderr)
    if output is not None:
        write(found.toml(), output)
        if not to_stderr:
            show(f"written to {output}")


@device.command("require")
def require(
    study: StudyName,
    loss: Loss,
    quantities: Quantities = None,
    pair: Pair = None,
    grid: Grid = 7,
    on: On = "all",
    kinds: Kinds = None,
    step: Step = 0.05,
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    cluster: Cluster = None,
    resume: Resume = True,
    python: Python = None,
) -> None:
    """Search the limits of cells within which a study loses no more than LOSS. A search that was stopped goes on."""
    from ohmformer.study.permission import check_python
    from ohmformer.study.requirements.catalog import read_kinds
    from ohmformer.study.requirements.require import answered, checked_request

    request = checked_request(
        study,
        loss,
        quantities=quantities or None,
        pair=pair,
        on=on,
        kinds=read_kinds(kinds or []),
        step=step,
        grid=grid,
        sets=sets or [],
    )
    check_python([request.settings], python or (), request.study.where)
    check_writable(json)
    stopping.says = GO_ON
    from ohmformer.study.executors.choose import chosen_workers

    folder = results_folder(out, request.study.name)
    with closing(chosen_workers(cluster, workers)) as pool:
        found = answered(request, folder, workers=pool, fresh=not resume)
    _report(found, folder, to_stderr=goes_to_stdout(json))
    write_document(found, json)


def _report(found: Requirements, folder: Path, *, to_stderr: bool) -> None:
    """Show limits, and write them and their figure into a folder.

    Raises:
        BadInput: a file cannot be written; the tables are shown before.
    """
    from ohmformer.report.requirements_figure import save_requirements_figure
    from ohmformer.report.requirements_table import requirement_sentences, requirements_csv, requirements_tables
    from ohmformer.study.results.document import to_json

    show(requirements_tables(found), to_stderr=to_stderr)
    for sentence in requirement_sentences(found):
        show(sentence, to_stderr=to_stderr)
    texts = {"requirements.json": to_json(found), "requirements.csv": requirements_csv(found)}
    figures = partial(save_requirements_figure, found, folder)
    show(write_files(folder, texts, figures, "results.sqlite"), to_stderr=to_stderr)
