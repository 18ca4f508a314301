"""Shows a finished study and writes its files: tables, sentences, results.json and figures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ohmformer.cli.output import write_files
from ohmformer.report.candidates.candidate_table import candidate_tables, comparisons
from ohmformer.report.caveats import caveats
from ohmformer.report.cost_table import cost_tables, costs_of_points
from ohmformer.report.table import capture_lines, study_tables
from ohmformer.report.verdict import findings
from ohmformer.study.results.document import to_json
from ohmformer.study.results.spec import StudyCosts, StudyResults
from ohmformer.terminal.console import show
from ohmformer.terminal.files import make_folder, write_text

PAGE = "report.html"
"""Name of the page in the folder of a study."""


def report_study(results: StudyResults, folder: Path, *, to_stderr: bool, unchanged: Sequence[str] = ()) -> None:
    """Show results, and write them and their figure into a folder, if that may be written.

    Args:
        results: the results.
        folder: the folder.
        to_stderr: True to show them on standard error.
        unchanged: names of the files of the folder, if it has them all as they would be written.

    Raises:
        BadInput: a file cannot be written; the tables are shown before.
    """
    show(study_tables(results), to_stderr=to_stderr)
    if results.cost_notes is not None:
        show(costs_of_points(results), to_stderr=to_stderr)
    if comparisons(results):
        show(candidate_tables(results), to_stderr=to_stderr)
    for sentence in (*capture_lines(results), *findings(results), *caveats(results)):
        show(sentence, to_stderr=to_stderr)

    if unchanged:
        show(f"unchanged in {folder}: {', '.join([*unchanged, 'results.sqlite'])}", to_stderr=to_stderr)
        return

    def figures() -> list[Path]:
        from ohmformer.report.candidates.candidate_figure import save_candidate_figure
        from ohmformer.report.figure import save_figure

        return [*save_figure(results, folder), *save_candidate_figure(results, folder)]

    show(write_files(folder, {"results.json": to_json(results)}, figures, "results.sqlite"), to_stderr=to_stderr)


def write_page(results: StudyResults, folder: Path) -> None:
    """Write the page of a study and its results, comparisons included, into its folder, if that may be written.

    Raises:
        BadInput: a file cannot be written.
    """
    from ohmformer.report.page.html_page import html_page
    from ohmformer.report.page.study_page import study_page

    if not os.access(folder, os.W_OK):
        return
    write_text(folder / "results.json", to_json(results))
    write_text(folder / PAGE, html_page(study_page(results)))


def report_costs(costs: StudyCosts, folder: Path, *, to_stderr: bool) -> None:
    """Show costs, and write them into a folder.

    Raises:
        BadInput: the file cannot be written; the tables are shown before.
    """
    show(cost_tables(costs), to_stderr=to_stderr)
    make_folder(folder)
    write_text(folder / "results.json", to_json(costs))
    files = [name for name in ("results.json", "results.sqlite") if os.path.exists(folder / name)]
    show(f"written to {folder}: {', '.join(files)}", to_stderr=to_stderr)
