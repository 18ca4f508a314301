"""Shows a finished study and writes its files: tables, sentences, results.json and figures. One that has not changed
since it was shown is shown without being read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ohmformer.cli.output import check_writable, goes_to_stdout, results_folder, write_document, write_files
from ohmformer.cli.stopping import stopping
from ohmformer.report.candidates.candidate_table import candidate_tables, comparisons
from ohmformer.report.caveats import caveats
from ohmformer.report.cost_table import cost_tables, costs_of_points
from ohmformer.report.table import capture_lines, study_tables
from ohmformer.report.verdict import findings
from ohmformer.study.results.document import to_json
from ohmformer.study.results.spec import StudyCosts, StudyResults
from ohmformer.study.store.fingerprint import fingerprint
from ohmformer.study.store.same_models import Sources, sources_of
from ohmformer.study.store.shown_again import note_shown, shown_again
from ohmformer.terminal.console import show
from ohmformer.terminal.files import make_folder, write_text
from ohmformer.terminal.signals import GO_ON

if TYPE_CHECKING:
    from ohmformer.study.spec import CostSettings, Settings, Study

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
        show(_unchanged(folder, unchanged), to_stderr=to_stderr)
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


def report_costs(costs: StudyCosts, folder: Path, *, to_stderr: bool, unchanged: Sequence[str] = ()) -> None:
    """Show costs, and write them into a folder, if that may be written; arguments and errors as of `report_study`."""
    show(cost_tables(costs), to_stderr=to_stderr)
    if unchanged:
        show(_unchanged(folder, unchanged), to_stderr=to_stderr)
        return
    make_folder(folder)
    show(write_files(folder, {"results.json": to_json(costs)}, tuple, "results.sqlite"), to_stderr=to_stderr)


def _unchanged(folder: Path, files: Sequence[str]) -> str:
    return f"unchanged in {folder}: {', '.join([*files, 'results.sqlite'])}"


class Again:
    """Shows a study that has not changed since it was shown last, without reading its points and loading its model."""

    def __init__(self, verb: str, study: str, sets: Sequence[str]) -> None:
        """Take the fingerprint of a study before it is read.

        Args:
            verb: of the command line.
            study: file or name of the study.
            sets: its changes.
        """
        self._command = verb, study, sets
        self._before = fingerprint(*self._command)
        self._sources: Sources | None = None

    def shown(self, out: str | None, json: str | None, workers: int | None = None) -> bool:
        """True if all was stored, and has been shown and written.

        Args:
            out: value of `--out`.
            json: value of `--json`.
            workers: value of `--workers`.

        Raises:
            BadInput: a file cannot be written, or the folder holds something else.
        """
        if self._before is None or (workers is not None and workers < 1):
            return False
        check_writable(json)
        stopping.says = GO_ON
        folder = results_folder(out, self._before.name)
        found = shown_again(folder, self._before)
        if found is None:
            return False
        results, to_stderr = found.results, goes_to_stdout(json)
        if isinstance(results, StudyResults):
            report_study(results, folder, to_stderr=to_stderr, unchanged=found.files)
        elif workers is None:
            report_costs(results, folder, to_stderr=to_stderr, unchanged=found.files)
        else:
            return False  # costs alone have no workers, which the ordinary path says
        write_document(results, json)
        return True

    def begin(self, study: Study[Settings] | Study[CostSettings]) -> None:
        """Take the digests of models and data of a study that has been read, before they are loaded."""
        if self._before is not None:
            self._sources = sources_of(study)

    def note(
        self,
        folder: Path,
        study: Study[Settings] | Study[CostSettings],
        results: StudyResults | StudyCosts,
        keys: Sequence[str],
    ) -> None:
        """Note what was shown since `begin`, if study and code are still those that were read; see `note_shown`."""
        if self._before is None or self._sources is None or self._before != fingerprint(*self._command):
            return
        note_shown(folder, study, results, keys, self._before, self._sources)
