"""The command line: one short function per verb. Free of torch until a verb computes."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ohmformer.errors import BadInput
from ohmformer.study.files import check_file, is_standard_output, write_text
from ohmformer.study.plain import clean
from ohmformer.study.signals import GO_ON, NOTHING_STORED, Stopped, Stopping

_stopping = Stopping()


class _Verbs(TyperGroup):
    """Verbs that stop at Ctrl-C and its like with one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except BaseException as error:
            if _stopping.number is None and not isinstance(error, (KeyboardInterrupt, Stopped)):
                raise
            _tell(str(error) if isinstance(error, Stopped) else _stopping.says)
            raise typer.Exit(_stopping.code) from None


app = typer.Typer(
    cls=_Verbs,
    name="ohmformer",
    help="Transformers on memristive crossbars: the accuracy they keep, and what the accelerator costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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

DEMO_PLATFORMS = (
    *("xformer_tvlsi_2023", "clipformer_tcad_2024_adc8", "nvm_ideal", "puma_asplos_2019", "gtx_1060", "h100_sxm"),
)
"""The machines that the demo compares."""


def main() -> int:
    """Run the command line; the exit code: 0 done, 1 a claim is missed, 2 bad input, 128 + n stopped by signal n."""
    as_program = sys._getframe(1).f_globals.get("__name__") == "__main__"
    with _stopping.watching(ends=as_program):
        try:
            return _main()
        except KeyboardInterrupt:
            return _stopping.code


def _main() -> int:
    try:
        found = app(prog_name="ohmformer", standalone_mode=False)
        return _stopping.code if _stopping.number else found if isinstance(found, int) else 0
    except BadInput as error:
        _tell(f"ohmformer: {error}")
        return 2
    except SystemExit as stop:
        return _stopping.code if _stopping.number else stop.code if isinstance(stop.code, int) else 1
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:  # a page of help
            from ohmformer.report.terminal import unwritten

            return unwritten(error)
        if not hasattr(error, "format_message"):  # typer's own complaints about options
            raise
        error.message = clean(str(getattr(error, "message", "")))  # type: ignore[attr-defined]
        error.show()  # type: ignore[attr-defined]
        return 2


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from ohmformer.study.result_key import versions

        _print(f"ohmformer {versions()['ohmformer']}")
        raise typer.Exit


@app.command()
def demo(out: Out = None, json: Json = None, workers: Workers = None, resume: Resume = True) -> None:
    """The main job on the bundled model and data: accuracy over write noise, its cost, and that of other machines."""
    from ohmformer.study.read_study import accuracy_half, cost_half, read_whole

    whole = read_whole("demo")
    found = _run(accuracy_half(whole), out, json, workers, resume, costs=cost_half(whole))
    comparisons = _compare_demo(Path(out, "platforms") if out else None, workers, to_stderr=_on_stdout(json))
    _write(_as_json({**found, "comparisons": comparisons}), json)


@app.command()
def run(
    study: StudyName,
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    resume: Resume = True,
    python: Python = None,
) -> None:
    """Both halves of a study: accuracy, and what each point costs. What is stored already is not computed again."""
    from ohmformer.study.join_cost import has_accuracy
    from ohmformer.study.permission import check_python
    from ohmformer.study.read_study import accuracy_half, cost_half, read_whole

    whole = read_whole(study, sets or [])
    check_python((point.settings for point in whole.points), python or (), whole.where)
    if has_accuracy(whole):
        found = _run(accuracy_half(whole), out, json, workers, resume, costs=cost_half(whole))
    else:
        found = _run_costs(cost_half(whole), out, json)
    _write(_as_json(found), json)


@app.command()
def accuracy(
    study: StudyName,
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    resume: Resume = True,
    python: Python = None,
) -> None:
    """The accuracy half of a study. What is stored already is not computed again."""
    from ohmformer.study.permission import check_python
    from ohmformer.study.read_study import read_study

    asked = read_study(study, sets or [])
    check_python((point.settings for point in asked.points), python or (), asked.where)
    _write(_as_json(_run(asked, out, json, workers, resume)), json)


@app.command()
def cost(
    study: StudyName,
    sets: Sets = None,
    json: Json = None,
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write the first point's timeline there, - for standard output; it opens in Perfetto.",
        ),
    ] = None,
    python: Python = None,
) -> None:
    """Latency, energy, area, utilisation and lifetime of a study's model on its accelerator."""
    from json import dumps

    from ohmformer.report.cost_table import cost_tables
    from ohmformer.study.cost import cost_document, read_costs, runs_of
    from ohmformer.study.permission import check_python

    _stopping.says = NOTHING_STORED
    _check(json)
    _check(trace, "--trace")
    if _on_stdout(json) and _on_stdout(trace):
        raise BadInput("--json and --trace: both go to standard output; name a file for one of them")
    asked = read_costs(study, sets or [])
    check_python((point.settings for point in asked.points), python or (), asked.where)
    found = cost_document(asked)
    if trace is not None:
        _write(dumps(runs_of(asked.points[0].settings)[0].timeline.chrome_trace()), trace)
    _print(cost_tables(found), to_stderr=_on_stdout(json) or _on_stdout(trace))
    _write(_as_json(found), json)


@app.command()
def compare(
    study: StudyName,
    platforms: Annotated[
        str, typer.Option(metavar="A,B,C", help="Accelerators; ratios are to the first one.", show_default=False)
    ] = "",
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    python: Python = None,
) -> None:
    """One study on several accelerators: cost, and accuracy where the study has a task."""
    from ohmformer.report.cost_table import compare_table
    from ohmformer.study.compare_platforms import compared

    _stopping.says = NOTHING_STORED
    _check(json)
    folder = None if out is None else _folder(out, "")
    found = compared(study, platforms.split(","), sets or [], out=folder, workers=workers, python=python or ())
    _print(compare_table(found), to_stderr=_on_stdout(json))
    _write(_as_json(found), json)


@app.command()
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

    _check(json)
    _check(page, "--page")
    if page == "-":
        raise BadInput("--page -: give the path of a file; --json - writes the claims to standard output")
    found = [check(name) for name in ([paper] if paper else papers())]
    for checked in found:
        _print(claims_table(checked), to_stderr=_on_stdout(json))
    _write(_as_json(claims_document(found)), json)
    said = [write_page(found, Path(page) if page else None, every=not paper), failed := failures(found)]
    for sentence in filter(None, said):
        _print(sentence, to_stderr=_on_stdout(json))
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_entries(
    kind: Annotated[str, typer.Argument(help="Only this kind, or a family such as write_noise.")] = "",
) -> None:
    """What the library holds: studies, accelerators, arrays, cells, shapes of models, bundled models and tasks."""
    from ohmformer.report.library import list_table

    _print(list_table(kind))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A library entry, or a .toml file.")],
    sources: Annotated[bool, typer.Option("--sources", help="Also say where in the source, and how derived.")] = False,
) -> None:
    """Every value of an entry, with its unit and where it comes from."""
    from ohmformer.report.library import show_tables

    for table in show_tables(name, sources=sources):
        _print(table)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="study, costs, accelerator, array, cell, shapes or results.")] = "study",
) -> None:
    """The JSON Schema of a kind of file, for editors that check while one types."""
    import json

    from ohmformer.report.json_schema import file_schema

    _write(json.dumps(file_schema(kind), indent=2) + "\n", "-")


def _run(
    study: Any, out: str | None, json: str | None, workers: int | None, resume: bool, *, costs: Any = None
) -> dict[str, Any]:
    """Compute, show, then write results.json and the figure; the document, with costs where those are given."""
    _check(json)
    _stopping.says = GO_ON
    from ohmformer.study.executors import default_workers
    from ohmformer.study.results import document
    from ohmformer.study.run import run_study, study_keys

    folder = _folder(out, study.name)
    count = default_workers() if workers is None else workers
    results = run_study(study, folder, workers=count, fresh=not resume)
    found = document(study, study_keys(study), results)
    if costs is not None:
        from ohmformer.study.join_cost import with_costs

        found = with_costs(found, costs)
    from ohmformer.report.outputs import report_study

    report_study(found, folder, to_stderr=_on_stdout(json))
    return found


def _run_costs(costs: Any, out: str | None, json: str | None) -> dict[str, Any]:
    """The cost half alone, where nothing can be measured: results.json and tables; the document."""
    from ohmformer.report.outputs import report_costs
    from ohmformer.study.join_cost import costs_alone

    _stopping.says = NOTHING_STORED
    _check(json)
    folder = _folder(out, costs.name)
    found = costs_alone(costs)
    report_costs(found, folder, to_stderr=_on_stdout(json))
    return found


def _compare_demo(folder: Path | None, workers: int | None, *, to_stderr: bool) -> list[dict[str, Any]]:
    """The bundled model, and BERT-base, on the accelerators of the library; both documents."""
    from ohmformer.report.cost_table import compare_table
    from ohmformer.study.compare_platforms import compared

    found = [compared("platforms", DEMO_PLATFORMS, out=folder, workers=workers), compared("bert_base", DEMO_PLATFORMS)]
    for each in found:
        _print(compare_table(each), to_stderr=to_stderr)
    return found


def _folder(out: str | None, name: str) -> Path:
    """Where results go."""
    from ohmformer.study.results import slug

    if out is not None and not out.strip():
        raise BadInput("--out: is empty; give the path of a folder, or leave the option out")
    return Path("ohmformer-runs", slug(name)) if out is None else Path(out)


def _check(file: str | None, option: str = "--json") -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    if file is not None:
        check_file(option, file)


def _on_stdout(file: str | None) -> bool:
    return file is not None and is_standard_output(file)


def _as_json(found: dict[str, Any]) -> str:
    from ohmformer.study.results import to_json

    return to_json(found)


def _write(text: str, file: str | None) -> None:
    """Where `--json` and its like ask for it."""
    if file is not None and is_standard_output(file):
        from ohmformer.report.terminal import write_json

        write_json(text)
    elif file is not None:
        write_text(Path(file), text)


def _print(content: Any, *, to_stderr: bool = False) -> None:
    from ohmformer.report.terminal import show

    show(content, to_stderr=to_stderr)


def _tell(line: str) -> None:
    from ohmformer.report.terminal import tell

    tell(line)


if __name__ == "__main__":
    sys.exit(main())
