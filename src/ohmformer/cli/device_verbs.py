"""The verbs on measured cells: device fit."""

from __future__ import annotations

from typing import Annotated

import typer

from ohmformer.cli.options import CellFigure, CellFile
from ohmformer.cli.output import check_outputs, goes_to_stdout, show, write
from ohmformer.cli.stopping import Verbs

device = typer.Typer(
    cls=Verbs,
    help="Make cells from measurements.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@device.callback()
def _root() -> None:
    """Make cells from measurements."""


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
