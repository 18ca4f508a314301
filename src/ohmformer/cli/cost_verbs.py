"""The verbs that price a study: cost, serve and compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ohmformer.cli.options import (
    Batch,
    Chunk,
    CostOut,
    Generate,
    Json,
    Out,
    Platforms,
    Prompt,
    Python,
    Resume,
    Sets,
    StudyName,
    Trace,
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
)
from ohmformer.cli.recording import command_line, costs_with_record
from ohmformer.cli.stopping import stopping
from ohmformer.errors import BadInput
from ohmformer.terminal.files import check_apart
from ohmformer.terminal.signals import GO_ON, NOTHING_STORED

if TYPE_CHECKING:
    from pathlib import Path


def cost(
    study: StudyName,
    sets: Sets = None,
    out: CostOut = None,
    json: Json = None,
    trace: Trace = None,
    resume: Resume = True,
    python: Python = None,
) -> None:
    """Compute latency, energy, area, utilization and lifetime of a study's model on its accelerator."""
    from json import dumps

    from ohmformer.cli.finished_study import Again, report_costs
    from ohmformer.report.cost_table import cost_tables

    if out is None and not resume:
        raise BadInput("--fresh: has no effect without --out, since nothing is stored; leave it out")
    stopping.says = NOTHING_STORED
    _check_files(json, trace)
    again = None if out is None else Again("cost", study, sets or ())
    if again is not None and trace is None and resume and not python and again.shown(out, json):
        return
    from ohmformer.study.cost import read_costs, runs_of, study_costs
    from ohmformer.study.permission import check_python
    from ohmformer.study.store.stored_costs import stored_prices

    points = read_costs(study, sets or [])
    check_python((point.settings for point in points.points), python or (), points.where)
    folder, keys = None if out is None else _costs_folder(out, points.name, trace), list[str]()
    if folder is None or again is None:
        costs = study_costs(points)
    else:
        stopping.says = GO_ON
        again.begin(points)
        with stored_prices(points, folder, fresh=not resume, alone=True) as price:
            costs, keys = study_costs(points, price=price, errors=price.folder), price.keys
    if json is not None or folder is not None:
        costs = costs_with_record(costs, command_line("cost", study, sets or ()), study, points)
    if trace is not None:
        write(dumps(runs_of(points.points[0].settings)[0].timeline.chrome_trace()), trace)
    if folder is None or again is None:
        show(cost_tables(costs, stored=False), to_stderr=_to_stdout(json, trace))
    else:
        report_costs(costs, folder, to_stderr=_to_stdout(json, trace))
        again.note(folder, points, costs, keys)
    write_document(costs, json)


def serve(
    study: StudyName,
    prompt: Prompt = None,
    generate: Generate = None,
    batch: Batch = None,
    chunk: Chunk = None,
    sets: Sets = None,
    json: Json = None,
    trace: Trace = None,
    python: Python = None,
) -> None:
    """Compute what requests to a study's language model take: time to first token, time per token, energy, wear."""
    from json import dumps

    from ohmformer.report.serving_table import serving_tables
    from ohmformer.study.cost import read_costs
    from ohmformer.study.permission import check_python
    from ohmformer.study.serving import served_of, study_served

    stopping.says = NOTHING_STORED
    _check_files(json, trace)
    lengths = {"model.seq_len": prompt, "model.generate": generate, "model.batch": batch, "model.chunk": chunk}
    given = [f"{path}={value}" for path, value in lengths.items() if value is not None]
    points = read_costs(study, [*(sets or []), *given])
    check_python((point.settings for point in points.points), python or (), points.where)
    events = None if trace is None else dumps(served_of(points.points[0].settings).chrome_trace())  # or is refused
    served = study_served(points)
    if json is not None:
        served = costs_with_record(served, command_line("serve", study, [*(sets or ()), *given]), study, points)
    if trace is not None and events is not None:
        write(events, trace)
    show(serving_tables(served), to_stderr=_to_stdout(json, trace))
    write_document(served, json)


def compare(
    study: StudyName,
    platforms: Platforms = "",
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    python: Python = None,
) -> None:
    """Compare accelerators by the cost of one study, and by its accuracy if the study has a task."""
    from ohmformer.report.cost_table import compare_table
    from ohmformer.study.compare_platforms import compared

    stopping.says = NOTHING_STORED
    check_writable(json)
    folder = None if out is None else results_folder(out, "")
    costs = compared(
        study,
        platforms.split(","),
        sets or [],
        out=folder,
        workers=workers,
        python=python or (),
        command="" if json is None else command_line("compare", study, sets or (), "--platforms", platforms),
    )
    show(compare_table(costs), to_stderr=goes_to_stdout(json))
    write_document(costs, json)


def _costs_folder(out: str, name: str, trace: str | None) -> Path:
    """The folder of `--out` for the costs of a study.

    Raises:
        BadInput: it holds results of another study, or accuracies of this one, which costs would displace; or the trace
            would be written over by results.json.
    """
    from ohmformer.study.store.store import Store
    from ohmformer.study.store.usable import why_empty

    folder = results_folder(out, name)
    check_apart({"--out": str(folder / "results.json"), "--trace": trace})
    file = folder / "results.sqlite"
    if file.is_file() and not why_empty(file):
        with Store(file) as store:
            if any(point.key for point in store.points() if point.study == name):
                raise BadInput(
                    f"{folder}: holds accuracies of this study, and results.json would lose them; ohmformer run stores "
                    "both halves, or choose another folder with --out"
                )
    return folder


def _check_files(json: str | None, trace: str | None) -> None:
    """Refuse files that cannot be written, and two documents on standard output.

    Raises:
        BadInput: one of these.
    """
    check_outputs(json=json, trace=trace)
    if goes_to_stdout(json) and goes_to_stdout(trace):
        raise BadInput("--json and --trace: both go to standard output; name a file for one of them")


def _to_stdout(*files: str | None) -> bool:
    """True if one of the documents goes to standard output, so that tables must not."""
    return any(map(goes_to_stdout, files))
