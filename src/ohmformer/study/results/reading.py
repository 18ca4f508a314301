"""Reads the results file of a run. Free of torch."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from ohmformer.errors import BadInput, shown
from ohmformer.study.failures import ERRORS
from ohmformer.study.results.folder import default_folder
from ohmformer.study.results.part import first_fault
from ohmformer.study.results.spec import DOCUMENTS, Document, StudyCosts, StudyResults
from ohmformer.study.store.store import Store
from ohmformer.study.store.usable import why_empty

RESULTS = "results.json"
AGAIN = "write it again with ohmformer run, accuracy, cost, serve or compare"


def results_file(run: str) -> Path:
    """The results file of a run.

    Args:
        run: its folder, the file itself, or the name of a study whose folder is the default one.

    Raises:
        BadInput: there is no such file.
    """
    if not run.strip():
        raise BadInput("RUN is empty; give the folder of a run, a file of results, or the name of a study")
    try:
        for place in (Path(run).expanduser(), default_folder(run)):
            if place.is_file():
                return place
            if (place / RESULTS).is_file():
                return place / RESULTS
            if place.is_dir():
                raise BadInput(f"{place}: has no {RESULTS}; {_remedy(place)}")
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{shown(run)}: cannot be read ({error}); give the folder of a run") from None
    raise BadInput(
        f"{shown(run)}: is no folder of a run, no file of results and no study that was run here; run it first"
    )


def _remedy(folder: Path) -> str:
    """What to do about a folder without results."""
    if (folder / ERRORS).is_file():
        return f"{ERRORS} says which points failed: mend them or take them out of the study, and run it again"
    if (folder / "search.json").is_file():
        return "it holds a search, whose front is in front.csv and front.svg; run its designs as a study for a page"
    return "wait until the run has ended, or run the study again"


def _check_current(file: Path, document: Document) -> None:
    """Refuse results of other points than those that the store beside them lists for the study.

    Raises:
        BadInput: a later run of the study with other points has not ended, or some of its points failed.
    """
    store = file.with_name("results.sqlite")
    if not isinstance(document, StudyResults | StudyCosts) or not store.is_file() or why_empty(store):
        return
    with Store(store) as opened:
        listed = [(point.set, point.label) for point in opened.points() if point.study == document.study]
    shown_points = [(point.set, point.label) for point in document.points]
    if listed and json.dumps(listed, default=str) != json.dumps(shown_points, default=str):
        raise BadInput(
            f"{file}: has other points than the last run of this study, which stopped or failed; run it again, or give "
            f"this file in place of its folder to see its own points"
        )


def read_results(run: str) -> Document:
    """The results of a run, checked.

    Args:
        run: as for `results_file`.

    Raises:
        BadInput: there is no such file, or it does not hold results; one line with the file and the remedy.
    """
    file = results_file(run)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror or error}); give a file of results") from None
    try:
        document = DOCUMENTS.validate_json(content)
    except ValidationError as error:
        if file.suffix == ".toml":
            raise BadInput(f"{file}: is a study, which holds no results; give the folder of its run") from None
        place, reason = first_fault(error)
        why = f"{place}: {reason}" if place else reason
        raise BadInput(f"{file}: does not hold results ({why}); {AGAIN}") from None
    if not Path(run).expanduser().is_file():
        _check_current(file, document)
    return document
