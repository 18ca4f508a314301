"""The command line: one short function per verb. Free of torch until a verb computes."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ohmformer.errors import BadInput

_interrupted = threading.Event()
"""Ctrl-C was pressed: whatever is raised from then on, such as by an import that was cut short, means a stop."""


class _Verbs(TyperGroup):
    """Verbs that stop at Ctrl-C with one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except typer.Exit:
            raise
        except BaseException as error:
            if not (_interrupted.is_set() or isinstance(error, KeyboardInterrupt)):
                raise
            print("stopped; run again to go on", file=sys.stderr)
            raise typer.Exit(130) from None


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
    Path | None, typer.Option(metavar="DIR", help="Where results go; default: ohmformer-runs/ and the study's name.")
]
Json = Annotated[
    str | None,
    typer.Option("--json", metavar="FILE", help="Write the results there as JSON; - for standard output."),
]
Workers = Annotated[int | None, typer.Option(metavar="N", help="Processes; default: one for each core.")]
Resume = Annotated[
    bool, typer.Option("--resume/--fresh", help="Use what is stored of this study, or compute all of it again.")
]


DEMO_PLATFORMS = (
    *("xformer_tvlsi_2023", "clipformer_tcad_2024_adc8", "nvm_ideal", "puma_asplos_2019", "gtx_1060", "h100_sxm"),
)
"""The machines that the demo compares."""


def main() -> int:
    """Run the command line; the exit code: 0 done, 2 bad input, 130 stopped by Ctrl-C."""
    _interrupted.clear()
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupt)
    try:
        return _main()
    except KeyboardInterrupt:
        return 130
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: Any) -> None:
    _interrupted.set()
    raise KeyboardInterrupt


def _main() -> int:
    try:
        app(prog_name="ohmformer")
    except BadInput as error:
        print(f"ohmformer: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except SystemExit as stop:
        return 130 if _interrupted.is_set() else stop.code if isinstance(stop.code, int) else 1
    return 0


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from ohmformer.study.result_key import versions

        typer.echo(f"ohmformer {versions()['ohmformer']}")
        raise typer.Exit


@app.command()
def demo(out: Out = None, json: Json = None, workers: Workers = None, resume: Resume = True) -> None:
    """The main job on the bundled model and data: accuracy over write noise, its cost, and that of other machines."""
    from ohmformer.study.cost import read_costs

    found = _run("demo", [], out, json, workers, resume, costs=read_costs("demo"))
    comparisons = _compare_demo(out / "platforms" if out else None, workers, to_stderr=json == "-")
    _write_text(_as_json(found, comparisons=comparisons), json)


@app.command()
def run(
    study: StudyName,
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    resume: Resume = True,
) -> None:
    """Both halves of a study: accuracy, and what each point costs. What is stored already is not computed again."""
    from ohmformer.study.cost import read_costs
    from ohmformer.study.join_cost import has_accuracy

    costs = read_costs(study, sets or [])
    if has_accuracy(costs):
        found = _run(study, sets or [], out, json, workers, resume, costs=costs)
    else:
        found = _run_costs(costs, out, json)
    _write_text(_as_json(found), json)


@app.command()
def accuracy(
    study: StudyName,
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    resume: Resume = True,
) -> None:
    """The accuracy half of a study. What is stored already is not computed again."""
    _write_text(_as_json(_run(study, sets or [], out, json, workers, resume)), json)


@app.command()
def cost(
    study: StudyName,
    sets: Sets = None,
    json: Json = None,
    trace: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the first point's timeline there; it opens in Perfetto.")
    ] = None,
) -> None:
    """Latency, energy, area, utilisation and lifetime of a study's model on its accelerator."""
    from ohmformer.report.cost_table import cost_tables
    from ohmformer.study.cost import cost_document, read_costs, runs_of

    _check_json(json)
    asked = read_costs(study, sets or [])
    found = cost_document(asked)
    if trace:
        runs_of(asked.points[0].settings)[0].save_trace(trace)
    _print(cost_tables(found), to_stderr=json == "-")
    _write_json(found, json)


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
) -> None:
    """One study on several accelerators: cost, and accuracy where the study has a task."""
    from ohmformer.report.cost_table import compare_table
    from ohmformer.study.compare_platforms import compared

    _check_json(json)
    found = compared(study, platforms.split(","), sets or [], out=out, workers=workers)
    _print(compare_table(found), to_stderr=json == "-")
    _write_json(found, json)


@app.command()
def validate(
    paper: Annotated[str, typer.Argument(help="A paper of the library; all of them by default.")] = "",
    json: Json = None,
    page: Annotated[
        Path | None,
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

    _check_json(json)
    found = [check(name) for name in ([paper] if paper else papers())]
    for checked in found:
        _print(claims_table(checked), to_stderr=json == "-")
    _write_json(claims_document(found), json)
    said = [write_page(found, page, every=not paper), failed := failures(found)]
    for sentence in filter(None, said):
        _print(sentence, to_stderr=json == "-")
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
    kind: Annotated[str, typer.Argument(help="study, costs, accelerator, array, cell or shapes.")] = "study",
) -> None:
    """The JSON Schema of a kind of file, for editors that check while one types."""
    import json

    from ohmformer.report.json_schema import file_schema

    typer.echo(json.dumps(file_schema(kind), indent=2))


def _run(
    name: str,
    sets: list[str],
    out: Path | None,
    json: str | None,
    workers: int | None,
    resume: bool,
    costs: Any = None,
) -> dict[str, Any]:
    """Read, check, compute, then write results.json and the figure; the document, with costs where those are given."""
    from ohmformer.study.read_study import read_study

    study = read_study(name, sets)
    _check_json(json)
    from ohmformer.study.executors import default_workers
    from ohmformer.study.results import document, slug, to_json, write_text
    from ohmformer.study.run import Stopped, run_study, study_keys

    folder = out or Path("ohmformer-runs") / slug(study.name)
    try:
        count = default_workers() if workers is None else workers
        results = run_study(study, folder, workers=count, fresh=not resume)
    except Stopped as stop:
        print(stop, file=sys.stderr)
        raise typer.Exit(130) from None
    found = document(study, study_keys(study), results)
    if costs is not None:
        from ohmformer.study.join_cost import with_costs

        found = with_costs(found, costs)
    write_text(folder / "results.json", to_json(found))
    _report(found, folder, to_stderr=json == "-")
    return found


def _run_costs(costs: Any, out: Path | None, json: str | None) -> dict[str, Any]:
    """The cost half alone, where nothing can be measured: results.json and tables; the document."""
    from ohmformer.report.cost_table import cost_tables
    from ohmformer.study.join_cost import costs_alone
    from ohmformer.study.results import make_folder, slug, to_json, write_text

    _check_json(json)
    found = costs_alone(costs)
    folder = out or Path("ohmformer-runs") / slug(costs.name)
    make_folder(folder)
    write_text(folder / "results.json", to_json(found))
    _print(cost_tables(found), to_stderr=json == "-")
    _print(f"written to {folder}: results.json", to_stderr=json == "-")
    return found


def _compare_demo(folder: Path | None, workers: int | None, *, to_stderr: bool) -> list[dict[str, Any]]:
    """The bundled model, and BERT-base, on the accelerators of the library; both documents."""
    from ohmformer.report.cost_table import compare_table
    from ohmformer.study.compare_platforms import compared

    found = [compared("platforms", DEMO_PLATFORMS, out=folder, workers=workers), compared("bert_base", DEMO_PLATFORMS)]
    for each in found:
        _print(compare_table(each), to_stderr=to_stderr)
    return found


def _as_json(found: dict[str, Any], **more: Any) -> str:
    from ohmformer.study.results import to_json

    return to_json({**found, **more})


def _write_json(found: dict[str, Any], file: str | None) -> None:
    """What `--json` asks for, of a document without single samples."""
    import json

    _write_text(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False, default=str) + "\n", file)


def _write_text(text: str, file: str | None) -> None:
    """Where `--json` asks for it."""
    from ohmformer.study.results import write_text

    if file == "-":
        sys.stdout.write(text)
    elif file:
        write_text(Path(file), text)


def _print(content: Any, *, to_stderr: bool = False) -> None:
    """Print a table or a sentence, brackets and all; wide enough for any table where the output is no terminal."""
    from rich.console import Console

    console = Console(stderr=to_stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 160
    console.print(content)


def _report(found: dict[str, Any], folder: Path, *, to_stderr: bool) -> None:
    from ohmformer.report.caveats import caveats
    from ohmformer.report.cost_table import costs_of_points
    from ohmformer.report.figure import save_figure
    from ohmformer.report.table import capture_lines, study_tables
    from ohmformer.report.verdict import clip_verdicts

    figures = save_figure(found, folder)
    _print(study_tables(found), to_stderr=to_stderr)
    if "cost_notes" in found:
        _print(costs_of_points(found), to_stderr=to_stderr)
    for sentence in (*capture_lines(found), *clip_verdicts(found), *caveats(found)):
        _print(sentence, to_stderr=to_stderr)
    files = ["results.json", "results.sqlite", *(file.name for file in figures)]
    _print(f"written to {folder}: {', '.join(files)}", to_stderr=to_stderr)


def _check_json(file: str | None) -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    if file and file != "-" and (Path(file).is_dir() or not Path(file).absolute().parent.is_dir()):
        raise BadInput(f"--json {file}: no such folder, or no file; give the path of a file in a folder that exists")


if __name__ == "__main__":
    sys.exit(main())
