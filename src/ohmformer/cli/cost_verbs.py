"""The verbs that price a study: cost, serve and compare."""

from __future__ import annotations

from ohmformer.cli.options import (
    Batch,
    Chunk,
    Generate,
    Json,
    Out,
    Platforms,
    Prompt,
    Python,
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
from ohmformer.terminal.signals import NOTHING_STORED


def cost(
    study: StudyName,
    sets: Sets = None,
    json: Json = None,
    trace: Trace = None,
    python: Python = None,
) -> None:
    """Compute latency, energy, area, utilization and lifetime of a study's model on its accelerator."""
    from json import dumps

    from ohmformer.report.cost_table import cost_tables
    from ohmformer.study.cost import read_costs, runs_of, study_costs
    from ohmformer.study.permission import check_python

    stopping.says = NOTHING_STORED
    _check_files(json, trace)
    points = read_costs(study, sets or [])
    check_python((point.settings for point in points.points), python or (), points.where)
    costs = study_costs(points)
    if json is not None:
        costs = costs_with_record(costs, command_line("cost", study, sets or ()), study, points)
    if trace is not None:
        write(dumps(runs_of(points.points[0].settings)[0].timeline.chrome_trace()), trace)
    show(cost_tables(costs, stored=False), to_stderr=_to_stdout(json, trace))
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
