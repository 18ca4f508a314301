"""What a finished study shows and writes: tables, sentences, results.json and figures."""

from __future__ import annotations

import os
from pathlib import Path

from ohmformer.report.caveats import caveats
from ohmformer.report.cost_table import cost_tables, costs_of_points
from ohmformer.report.figure import save_figure
from ohmformer.report.table import capture_lines, study_tables
from ohmformer.report.terminal import show
from ohmformer.report.verdict import clip_verdicts
from ohmformer.report.view import Document
from ohmformer.study.files import make_folder, write_text
from ohmformer.study.results import to_json


def report_study(found: Document, folder: Path, *, to_stderr: bool) -> None:
    """Show a document of accuracy, and write it and its figure into a folder, if that may be written.

    Raises:
        BadInput: something cannot be written; the tables are shown before.
    """
    show(study_tables(found), to_stderr=to_stderr)
    if "cost_notes" in found:
        show(costs_of_points(found), to_stderr=to_stderr)
    for sentence in (*capture_lines(found), *clip_verdicts(found), *caveats(found)):
        show(sentence, to_stderr=to_stderr)
    if not os.access(folder, os.W_OK):
        show(f"read from {folder}, which may not be written: its files stay as they are", to_stderr=to_stderr)
        return
    write_text(folder / "results.json", to_json(found))
    figures = save_figure(found, folder)
    files = ["results.json", "results.sqlite", *(file.name for file in figures)]
    show(f"written to {folder}: {', '.join(files)}", to_stderr=to_stderr)


def report_costs(found: Document, folder: Path, *, to_stderr: bool) -> None:
    """Show a document of costs alone, and write it into a folder.

    Raises:
        BadInput: it cannot be written; the tables are shown before.
    """
    show(cost_tables(found), to_stderr=to_stderr)
    make_folder(folder)
    write_text(folder / "results.json", to_json(found))
    show(f"written to {folder}: results.json", to_stderr=to_stderr)
