"""Reads the results file of a run. Free of torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from ohmformer.errors import BadInput, shown
from ohmformer.study.results.folder import default_folder
from ohmformer.study.results.part import first_fault
from ohmformer.study.results.spec import DOCUMENTS, Document

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
                raise BadInput(f"{place}: has no {RESULTS}; wait until the run has ended, or run the study again")
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{shown(run)}: cannot be read ({error}); give the folder of a run") from None
    raise BadInput(
        f"{shown(run)}: is no folder of a run, no file of results and no study that was run here; run it first"
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
        return DOCUMENTS.validate_json(content)
    except ValidationError as error:
        if file.suffix == ".toml":
            raise BadInput(f"{file}: is a study, which holds no results; give the folder of its run") from None
        place, reason = first_fault(error)
        why = f"{place}: {reason}" if place else reason
        raise BadInput(f"{file}: does not hold results ({why}); {AGAIN}") from None
