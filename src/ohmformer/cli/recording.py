"""Adds the record of a study to its results: the command line, settings, hardware with sources, and sentences."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ohmformer.study.results.spec import StudyCosts, StudyResults, StudyServed
    from ohmformer.study.spec import CostSettings, Settings, Study

Priced = TypeVar("Priced", "StudyCosts", "StudyServed")


def command_line(verb: str, study: str, sets: Sequence[str] = (), *further: str) -> str:
    """The command that gives the same results: without options that change no result, such as --out and --workers."""
    changes = [word for change in sets for word in ("--set", change)]
    return shlex.join(["ohmformer", verb, *([study] if study else []), *changes, *further])


def with_record(
    results: StudyResults, command: str, name: str, measured: Study[Settings], costs: Study[CostSettings] | None
) -> StudyResults:
    """Results of a study of accuracy with their record.

    Args:
        results: with costs, if `costs` is given.
        command: see `command_line`.
        name: file or name of the study.
        measured: its accuracy half.
        costs: its cost half; None without costs.
    """
    from ohmformer.report.verdict import clip_verdicts
    from ohmformer.study.record.record import study_record

    record = study_record(
        command,
        name,
        measured=measured,
        costs=costs,
        chosen=[point.accuracy.chosen for point in results.points],
        priced=[point.cost is not None for point in results.points],
    )
    findings = tuple(clip_verdicts(results))  # they need the scores of single samples, which a results file leaves out
    return results.model_copy(update={"record": record.model_copy(update={"findings": findings})})


def costs_with_record(priced: Priced, command: str, name: str, costs: Study[CostSettings]) -> Priced:
    """Costs of a study, or of its requests, with their record; see `with_record`."""
    from ohmformer.study.record.record import study_record

    return priced.model_copy(update={"record": study_record(command, name, costs=costs)})
