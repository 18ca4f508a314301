"""The verb that a newcomer runs first: demo."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ohmformer.cli.demo.demos import LANGUAGE_MODEL, VISION
from ohmformer.cli.options import Json, Out, Resume, Workers
from ohmformer.cli.output import check_writable, goes_to_stdout, results_folder, show, write_document
from ohmformer.cli.recording import command_line
from ohmformer.cli.study_verbs import measured

if TYPE_CHECKING:
    from ohmformer.study.results.spec import StudyCosts

PLATFORMS = (
    *("xformer_tvlsi_2023", "clipformer_tcad_2024_adc8", "nvm_ideal", "puma_asplos_2019", "gtx_1060", "h100_sxm"),
)
"""The machines that the first demo compares."""


class Name(StrEnum):
    """Names of the demos."""

    vision = "vision"
    llm = "llm"


DEMOS = {Name.vision: VISION, Name.llm: LANGUAGE_MODEL}


def demo(
    which: Annotated[
        Name,
        typer.Argument(
            metavar="[vision|llm]",
            help="vision, with the model and data of this package, or llm, a language model (the extra `demo`).",
        ),
    ] = Name.vision,
    out: Out = None,
    json: Json = None,
    workers: Workers = None,
    resume: Resume = True,
) -> None:
    """Measure a real transformer over the write noise of K and V, and write a page on it. A few minutes.

    The first demo also computes costs, and compares machines.
    """
    from ohmformer.study.executors.worker import default_workers
    from ohmformer.study.read_study import accuracy_half, cost_half, read_whole

    chosen, to_stderr = DEMOS[which], goes_to_stdout(json)
    chosen.check_packages()
    check_writable(json)
    whole = read_whole(chosen.study)
    folder = results_folder(out, whole.name)
    count = default_workers() if workers is None else workers
    for line in chosen.beginning(len(whole.points), whole.points[0].settings.trials.chips, count, str(folder)):
        show(line, to_stderr=to_stderr)
    asked = command_line("demo", "" if which is Name.vision else which), chosen.study
    results = measured(accuracy_half(whole), asked, out, json, workers, resume, costs=cost_half(whole))
    if which is Name.vision:
        comparisons = _comparisons(Path(out, "platforms") if out else None, workers, to_stderr=to_stderr)
        results = results.model_copy(update={"comparisons": comparisons})
    from ohmformer.cli.finished_study import PAGE, write_page
    from ohmformer.report.page.answer import at_most_noise

    write_page(results, folder)
    for line in ("", at_most_noise(results), *chosen.ending(folder / PAGE)):
        show(line, to_stderr=to_stderr)
    write_document(results, json)


def _comparisons(folder: Path | None, workers: int | None, *, to_stderr: bool) -> tuple[StudyCosts, ...]:
    """Compare accelerators of the library, for the bundled model and for BERT-base, and show the tables."""
    from ohmformer.report.cost_table import compare_table
    from ohmformer.study.compare_platforms import compared

    bundled = compared("platforms", PLATFORMS, out=folder, workers=workers)
    comparisons = (bundled, compared("bert_base", PLATFORMS))
    for comparison in comparisons:
        show(compare_table(comparison), to_stderr=to_stderr)
    return comparisons
