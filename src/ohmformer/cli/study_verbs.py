"""The verbs that measure accuracy: run and accuracy."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from ohmformer.cli.options import Cluster, Json, KeepOld, Out, Python, Resume, Sets, StudyName, Workers
from ohmformer.cli.output import check_writable, goes_to_stdout, results_folder, write_document
from ohmformer.cli.recording import command_line, costs_with_record, with_record
from ohmformer.cli.stopping import stopping
from ohmformer.errors import BadInput
from ohmformer.terminal.signals import GO_ON

if TYPE_CHECKING:
    from ohmformer.cli.finished_study import Again
    from ohmformer.study.results.spec import StudyCosts, StudyResults
    from ohmformer.study.spec import CostSettings, Settings, Study


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
    from ohmformer.cli.finished_study import Again

    again = Again("run", study, sets or ())
    if not (cluster or keep_old or python) and resume and again.shown(out, json, workers):
        return
    from ohmformer.study.join_cost import has_accuracy
    from ohmformer.study.permission import check_python
    from ohmformer.study.read_study import accuracy_half, cost_half, read_whole

    whole = read_whole(study, sets or [])
    asked = command_line("run", study, sets or ()), study
    check_python((point.settings for point in whole.points), python or (), whole.where)
    if has_accuracy(whole):
        from ohmformer.study.use.hours import in_use

        costs = cost_half(whole)
        results = measured(
            *(in_use(accuracy_half(whole), costs), asked, out, json, workers, resume),
            cluster=cluster,
            costs=costs,
            keep_old=keep_old,
            again=again,
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
        write_document(priced(cost_half(whole), asked, out, json, fresh=not resume, again=again), json)


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
    from ohmformer.cli.finished_study import Again

    again = Again("accuracy", study, sets or ())
    if not (cluster or keep_old or python) and resume and again.shown(out, json, workers):
        return
    from ohmformer.study.permission import check_python
    from ohmformer.study.read_study import cost_half, read_both

    points, whole = read_both(study, sets or [])
    check_python((point.settings for point in points.points), python or (), points.where)
    if any(point.settings.simulation.hours for point in points.points):
        from ohmformer.study.use.hours import in_use

        points = in_use(points, cost_half(whole))
    asked = command_line("accuracy", study, sets or ()), study
    options: dict[str, Any] = {"cluster": cluster, "keep_old": keep_old, "again": again}
    write_document(measured(points, asked, out, json, workers, resume, **options), json)


def measured(
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
    again: Again | None = None,
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
        again: notes what was shown, so that it can be shown again; None to note nothing.

    Raises:
        BadInput: the study cannot be computed, or a file cannot be written.
    """
    check_writable(json)
    stopping.says = GO_ON
    from ohmformer.study.executors.choose import chosen_workers
    from ohmformer.study.results.document import study_results
    from ohmformer.study.run import run_with_keys

    if keep_old and not resume:
        raise BadInput("--keep-old and --fresh: one keeps stored results, the other deletes them; give one of them")
    if again is not None:
        again.begin(study)
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
    if again is not None:
        again.note(folder, study, results, keys)
    return results


def priced(
    study: Study[CostSettings], asked: tuple[str, str], out: str | None, json: str | None, *, fresh: bool, again: Again
) -> StudyCosts:
    """Compute the costs of a study without measurable accuracy, show them, and write results.json to its folder.

    Args:
        study: the cost half.
        asked: the command line that gives the same results, and the file or name of the study.
        out: folder of the results; None for the default one.
        json: file of `--json`. If it is standard output, tables go to standard error.
        fresh: True to compute stored costs again.
        again: notes what was shown.

    Raises:
        BadInput: a point has no price, or a file cannot be written.
    """
    from ohmformer.cli.finished_study import report_costs
    from ohmformer.study.join_cost import costs_alone
    from ohmformer.study.store.stored_costs import stored_prices

    stopping.says = GO_ON
    check_writable(json)
    folder = results_folder(out, study.name)
    again.begin(study)
    with stored_prices(study, folder, fresh=fresh, alone=True) as price:
        costs = costs_with_record(costs_alone(study, price=price, errors=price.folder), *asked, study)
    report_costs(costs, folder, to_stderr=goes_to_stdout(json))
    again.note(folder, study, costs, price.keys)
    return costs
