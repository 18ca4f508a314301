"""Arguments and options that several verbs share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from ohmformer.cli.completion import clusters, study_names
from ohmformer.terminal.paths import given_path


def _path(param: typer.CallbackParam, value: str | None) -> str | None:
    """The path of an option, expanded or refused as `given_path` does."""
    return None if value is None else given_path(param.opts[0], value)


class CitationFormat(StrEnum):
    """Form of references."""

    bibtex = "bibtex"
    text = "text"


CiteFormat = Annotated[CitationFormat, typer.Option("--format", help="BibTeX, or one line of text for each work.")]
SchemaFolder = Annotated[
    str | None,
    typer.Option(
        "--write", metavar="FOLDER", help="Write the schemas of all kinds of files into this folder.", callback=_path
    ),
]
StudyName = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="A study file (.toml), or the name of a library study.", autocompletion=study_names
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change a value of the study, such as trials.chips=5. May be repeated."
    ),
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the results; by default ohmformer-runs/NAME, where NAME is that of the study.",
        callback=_path,
    ),
]
CostOut = Annotated[
    str | None,
    typer.Option(
        "--out",
        metavar="DIR",
        help="Store costs in this folder, reuse those that it has, and write results.json there; by default nothing is "
        "stored.",
        show_default=False,
        callback=_path,
    ),
]
Json = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the results to this file as JSON; - is standard output.", callback=_path
    ),
]
Trace = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Write the timeline of the first point to this file, for Perfetto; - is standard output.",
        callback=_path,
    ),
]
Page = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Write the page to this file; by default, if PAPER is left out, to docs/validation.md.",
        callback=_path,
    ),
]
Report = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to this file; - is standard output. With --format svg or pdf a folder. By default report.html, "
        "report.md or figures.",
        show_default=False,
        callback=_path,
    ),
]
ReportFormat = Annotated[
    str, typer.Option(metavar="FORMAT", help="html, md (Markdown), or svg or pdf: one file for each chart, for papers.")
]
CellFile = Annotated[
    str | None,
    typer.Option(
        "--output", "-o", metavar="CELL.toml", help="Write the cell to this file; - is standard output.", callback=_path
    ),
]
CellFigure = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Draw fit, residuals and quantiles: .svg, .png or .pdf.", callback=_path),
]
Platforms = Annotated[
    str,
    typer.Option(
        metavar="A,B,C",
        help="Accelerators of the library, or .toml files; ratios refer to the first one.",
        show_default=False,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of processes; by default one for each processor core. On a Dask scheduler, the most points under "
        "way; by default one for each of its workers.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Compute points on the workers of a Dask scheduler (tcp://HOST:PORT), on Dask workers of this machine "
        "(local), or on Ray (ray; RAY_ADDRESS names its cluster).",
        show_default=False,
        autocompletion=clusters,
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume/--fresh", help="Use stored results of this study, or compute all points again.")
]
KeepOld = Annotated[
    bool,
    typer.Option(
        "--keep-old",
        help="Keep stored accuracies that other code, such as a former version, has computed; each is marked. "
        "Otherwise they are computed again.",
        show_default=False,
    ),
]
RunFolder = Annotated[
    str,
    typer.Argument(metavar="RUN", help="Folder of a study's results, such as ohmformer-runs/NAME.", callback=_path),
]
Table = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to this file, .csv or .parquet; - is CSV on standard output.",
        callback=_path,
    ),
]
Python = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-python",
        metavar="MODULE",
        help="Let the study call functions of this module and of its submodules (python: sources). May be repeated.",
    ),
]
Prompt = Annotated[
    int | None,
    typer.Option(metavar="N", help="Tokens of the prompt, in place of model.seq_len.", show_default=False),
]
Generate = Annotated[
    int | None,
    typer.Option(metavar="N", help="Generated tokens of each request, in place of model.generate.", show_default=False),
]
Chunk = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Tokens of a new prompt that join each decoding step of the steady state (chunked prefill).",
        show_default=False,
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(metavar="N", help="Requests that start together, in place of model.batch.", show_default=False),
]
Loss = Annotated[
    str,
    typer.Option(
        metavar="LOSS",
        help='Accepted loss against the software model: "1 %" is one percentage point of an accuracy, and 1 % of any '
        "other metric.",
    ),
]
Quantities = Annotated[
    list[str] | None,
    typer.Option(
        "--quantity",
        metavar="NAME",
        help="Search only this quantity: write_noise, read_noise, drift, verify_tolerance, retention, endurance, "
        "levels, output_noise or input_noise. May be repeated.",
    ),
]
Pair = Annotated[
    tuple[str, str] | None,
    typer.Option("--map", metavar="FIRST SECOND", help="Search the limit of SECOND at several values of FIRST."),
]
Grid = Annotated[int, typer.Option(metavar="N", help="Values of FIRST.")]
On = Annotated[
    str,
    typer.Option(
        metavar="ARRAYS", help="Whose cells change: all, projection, attention, attention.key or attention.value."
    ),
]
Kinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="NAME=KIND",
        help="Kind of noise that cells get, such as write_noise=sqrt_range. May be repeated.",
    ),
]
Step = Annotated[float, typer.Option(metavar="SHARE", help="Relative distance of neighboring values.")]
