"""The verbs that measure accuracy: demo, run and accuracy."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from ohmformer.cli.options import Cluster, Json, KeepOld, Out, Python, Resume, Sets, StudyName, Workers
from ohmformer.cli.output import check_writable, goes_to_stdout, results_folder, show, write_document
from ohmformer.cli.recording import command_line, costs_with_record, with_record
from ohmformer.cli.stopping import stopping
from ohmformer.errors import BadInput
from ohmformer.terminal.signals import GO_ON

if TYPE_CHECKING:
    from ohmformer.study.results.spec import StudyCosts, StudyResults
    from ohmformer.study.spec import CostSettings, Settings, Study

DEMO_PLATFORMS = (
    *("xformer_tvlsi_2023", "clipformer_tcad_2024_adc8", "nvm_ideal", "puma_asplos_2019", "gtx_1060", "h100_sxm"),
)
"""The machines that the demo compares."""


def demo(out: Out = None, json: Json = None, workers: Workers = None, resume: Resume = True) -> None:
    """Measure the bundled model's accuracy over write noise, compute its cost, compare machines, and write a page."""
    from ohmformer.cli.finished_study import write_page
    from ohmformer.study.read_study import accuracy_half, cost_half, read_whole

    whole = read_whole("demo")
    asked = command_line("demo", ""), "demo"
    results = _measured(accuracy_half(whole), asked, out, json, workers, resume, costs=cost_half(whole))
    comparisons = _demo_comparisons(Path(out, "platforms") if out else None, workers, to_stderr=goes_to_stdout(json))
    results = results.model_copy(update={"comparisons": comparisons})
    write_page(results, results_folder(out, results.study), to_stderr=goes_to_stdout(json))
    write_document(results, json)


def run(
    study: StudyName,
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    cluster: Cluster = None,
    resume: Resume = True,
    keep_old: KeepOld = False,
    python: Python = None,
) -> None:
    """Measure the accuracy of a study and compute the cost of each of its points. Stored accuracies are reused."""
    from ohmformer.study.join_cost import has_accuracy
    from ohmformer.study.permission import check_python
    from ohmformer.study.read_study import accuracy_half, cost_half, read_whole

    whole = read_whole(study, sets or [])
    asked = command_line("run", study, sets or ()), study
    check_python((point.settings for point in whole.points), python or (), whole.where)
    if has_accuracy(whole):
        from ohmformer.study.use.hours import in_use

        costs = cost_half(whole)
        results = _measured(
            *(in_use(accuracy_half(whole), costs), asked, out, json, workers, resume),
            cluster=cluster,
            costs=costs,
            keep_old=keep_old,
        )
        write_document(results, json)
    else:
        if keep_old:
            raise BadInput(
                f"{whole.where}: --keep-old: has no effect, since the study has no accuracy, and costs are "
                "always those of the present code; leave it out"
            )
        for option, value in (("--workers", workers), ("--cluster", cluster)):
            if value is not None:
                raise BadInput(
                    f"{whole.where}: {option} {value}: has no effect, since the study has no accuracy, and costs are "
                    "computed in one process; leave it out"
                )
        write_document(_priced(cost_half(whole), asked, out, json, fresh=not resume), json)


def accuracy(
    study: StudyName,
    sets: Sets = None,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    cluster: Cluster = None,
    resume: Resume = True,
    keep_old: KeepOld = False,
    python: Python = None,
) -> None:
    """Measure the accuracy of a study, without its cost. Stored results are reused."""
    from ohmformer.study.permission import check_python
    from ohmformer.study.read_study import cost_half, read_both

    points, whole = read_both(study, sets or [])
    check_python((point.settings for point in points.points), python or (), points.where)
    if any(point.settings.simulation.hours for point in points.points):
        from ohmformer.study.use.hours import in_use

        points = in_use(points, cost_half(whole))
    asked = command_line("accuracy", study, sets or ()), study
    write_document(_measured(points, asked, out, json, workers, resume, cluster=cluster, keep_old=keep_old), json)


def _measured(
    study: Study[Settings],
    asked: tuple[str, str],
    out: str | None,
    json: str | None,
    workers: int | None,
    resume: bool,
    *,
    cluster: str | None = None,
    costs: Study[CostSettings] | None = None,
    keep_old: bool = False,
) -> StudyResults:
    """Compute a study, show it, and write results.json and the figure into its folder.

    Args:
        study: the accuracy half.
        asked: the command line that gives the same results, and the file or name of the study.
        out: folder of the results; None for the default one.
        json: file of `--json`. If it is standard output, tables go to standard error.
        workers: number of processes; None for one per core.
        resume: True to reuse stored results.
        cluster: value of `--cluster`; None for processes of this machine.
        costs: the cost half; None to leave costs out.
        keep_old: True to keep stored accuracies that other code computed.
    """
    check_writable(json)
    stopping.says = GO_ON
    from ohmformer.study.executors.choose import chosen_workers
    from ohmformer.study.results.document import study_results
    from ohmformer.study.run import run_with_keys

    if keep_old and not resume:
        raise BadInput("--keep-old and --fresh: one keeps stored results, the other deletes them; give one of them")
    folder = results_folder(out, study.name)
    with closing(chosen_workers(cluster, workers)) as pool:
        keys, answers = run_with_keys(study, folder, workers=pool, fresh=not resume, keep_old=keep_old)
    results = study_results(study, keys, answers)
    if costs is not None:
        from ohmformer.study.join_cost import with_costs
        from ohmformer.study.store.stored_costs import stored_prices

        with stored_prices(costs, folder, fresh=not resume) as price:
            results = with_costs(results, costs, price=price)
    results = with_record(results, *asked, study, costs)
    from ohmformer.cli.finished_study import report_study

    report_study(results, folder, to_stderr=goes_to_stdout(json))
    return results


def _priced(
    study: Study[CostSettings], asked: tuple[str, str], out: str | None, json: str | None, *, fresh: bool
) -> StudyCosts:
    """Compute the costs of a study without measurable accuracy, show them, and write results.json to its folder."""
    from ohmformer.cli.finished_study import report_costs
    from ohmformer.study.join_cost import costs_alone
    from ohmformer.study.store.stored_costs import stored_prices

    stopping.says = GO_ON
    check_writable(json)
    folder = results_folder(out, study.name)
    with stored_prices(study, folder, fresh=fresh) as price:
        costs = costs_with_record(costs_alone(study, price=price), *asked, study)
    report_costs(costs, folder, to_stderr=goes_to_stdout(json))
    return costs


def _demo_comparisons(folder: Path | None, workers: int | None, *, to_stderr: bool) -> tuple[StudyCosts, ...]:
    """Compare accelerators of the library, for the bundled model and for BERT-base, and show the tables."""
    from ohmformer.report.cost_table import compare_table
    from ohmformer.study.compare_platforms import compared

    bundled = compared("platforms", DEMO_PLATFORMS, out=folder, workers=workers)
    comparisons = (bundled, compared("bert_base", DEMO_PLATFORMS))
    for comparison in comparisons:
        show(compare_table(comparison), to_stderr=to_stderr)
    return comparisons
