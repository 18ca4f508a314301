"""Arguments and options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study file (.toml), or the name of a library study.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change a value of the study, such as trials.chips=5. Repeatable."
    ),
]
Out = Annotated[
    str | None, typer.Option(metavar="DIR", help="Where results go; default: ohmformer-runs/ and the study's name.")
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the results there as JSON; - for standard output."),
]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Processes; default: one for each core.")]
Resume = Annotated[
    bool, typer.Option("--resume/--fresh", help="Use what is stored of this study, or compute all of it again.")
]
Python = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-python",
        metavar="MODULE",
        help="Let the study run functions of this module, or of modules below it (python: sources). Repeatable.",
    ),
]
