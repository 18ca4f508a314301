"""The verb search: the best designs of a study."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ohmformer.cli.options import Cluster, Json, Out, Python, Resume, Sets, StudyName, Workers
from ohmformer.cli.output import check_writable, goes_to_stdout, results_folder, show, write_document, write_files
from ohmformer.cli.stopping import stopping
from ohmformer.terminal.signals import GO_ON

if TYPE_CHECKING:
    from ohmformer.study.results.search import SearchResults

Trials = Annotated[
    int | None,
    typer.Option(metavar="N", help="Designs to try, in place of search.trials of the study.", show_default=False),
]


def search(
    study: StudyName,
    trials: Trials = None,
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    cluster: Cluster = None,
    resume: Resume = True,
    python: Python = None,
) -> None:
    """Search the designs of a study that no other one beats (Pareto front). A search that was stopped goes on."""
    from ohmformer.study.permission import check_python
    from ohmformer.study.search.request import read_request

    request = read_request(study, sets or [], trials=trials)
    check_python(request.checked, python or (), request.where)
    check_writable(json)
    stopping.says = GO_ON
    from ohmformer.study.executors.choose import chosen_workers
    from ohmformer.study.search.search import searched

    folder = results_folder(out, request.name)
    with closing(chosen_workers(cluster, workers)) as pool:
        found = searched(request, folder, workers=pool, fresh=not resume, python=tuple(python or ()))
    _report(found, folder, to_stderr=goes_to_stdout(json))
    write_document(found, json)


def _report(found: SearchResults, folder: Path, *, to_stderr: bool) -> None:
    """Show the front, and write it, all designs and the figure into a folder.

    Raises:
        BadInput: a file cannot be written; the table is shown before.
    """
    from ohmformer.report.pareto.front_figure import save_front_figure
    from ohmformer.report.pareto.front_table import designs_csv, front_csv, front_table, search_sentences
    from ohmformer.study.results.document import to_json

    show(front_table(found), to_stderr=to_stderr)
    for sentence in search_sentences(found):
        show(sentence, to_stderr=to_stderr)
    texts = {"search.json": to_json(found), "front.csv": front_csv(found), "designs.csv": designs_csv(found)}
    figures = partial(save_front_figure, found, folder)
    show(write_files(folder, texts, figures, "search.journal"), to_stderr=to_stderr)
