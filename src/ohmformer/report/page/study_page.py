"""Makes the page of a study from its stored results, and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from ohmformer.errors import BadInput, cut
from ohmformer.report.cost_table import point_name
from ohmformer.report.page.accuracy import accuracy_section, candidate_note
from ohmformer.report.page.answer import answer
from ohmformer.report.page.content import Page, Section
from ohmformer.report.page.costs import comparison_section, cost_sections, served_sections
from ohmformer.report.page.key_figures import key_figures
from ohmformer.report.page.record_sections import OLD, hardware_section, pass_sections, ran_section, repeat_section
from ohmformer.report.page.trade_off import trade_off_sections
from ohmformer.report.view import axis_name, setting
from ohmformer.study.results.record import Record
from ohmformer.study.results.spec import Document, StudyCosts, StudyResults, StudyServed

Reported = StudyResults | StudyCosts | StudyServed
"""Documents that a page is made of."""

ASKED = {
    "model.source": "model",
    "task.source": "data",
    "hardware.base": "hardware",
    "trials.chips": "chips",
    "simulation.level": "level of simulation",
    "simulation.kernels": "kernels on the CPU",
}
"""Path of a setting -> the subject that it answers on the page."""

MOST_VALUES = 100
"""Characters of the values of a sweep that the question lists."""


def study_page(document: Document) -> Page:
    """The page of a study.

    Raises:
        BadInput: the document is not one of accuracy, costs or requests, or has no points.
    """
    if not isinstance(document, StudyResults | StudyCosts | StudyServed):
        raise BadInput("report: is for studies of accuracy and cost; requirements and claims have tables of their own")
    if not document.points:
        raise BadInput("report: the study has no points; compute one first")
    return Page(
        title=document.study,
        question=tuple(_question(document)),
        answer=answer(document),
        figures=key_figures(document),
        sections=tuple(section for section in _sections(document) if section is not None),
        command=document.record.command if document.record else "",
    )


def _question(document: Reported) -> Iterator[tuple[str, str]]:
    """What was asked, as pairs of a subject and words."""
    record = document.record
    settings = dict(record.settings) if record else {}
    swept = {path for point in document.points for path in point.set}
    for path, subject in ASKED.items():
        if settings.get(path) and path not in swept:
            yield subject, settings[path]
    if isinstance(document, StudyResults):
        metrics = dict.fromkeys(f"{each.accuracy.shown.title} ({each.accuracy.metric})" for each in document.points)
        yield "measured", ", ".join(metrics)
    for path in dict.fromkeys(path for point in document.points for path in point.set):
        values = list(dict.fromkeys(_value(path, point.set[path]) for point in document.points if path in point.set))
        if len(values) > 1:
            yield f"swept: {axis_name(path)}", _listed(values)
    yield "points", f"{len(document.points):,}"


def _value(path: str, value: object) -> str:
    """A swept value in words, without its path."""
    return setting(path, value).removeprefix(f"{axis_name(path)} = ")


def _listed(values: list[str]) -> str:
    """Values with commas; of many the first and the last."""
    text = "; ".join(values) if any("," in value for value in values) else ", ".join(values)
    return text if len(text) <= MOST_VALUES else f"{len(values)} values, from {cut(values[0])} to {cut(values[-1])}"


def _sections(document: Reported) -> Iterator[Section | None]:
    record = document.record
    if isinstance(document, StudyResults):
        section = accuracy_section(document)
        note = candidate_note(document)
        yield section if not note else Section(**{**vars(section), "notes": (*section.notes, note)})
    if isinstance(document, StudyServed):
        yield from served_sections(document)
    else:
        yield from trade_off_sections(document)
        yield from cost_sections(document)
    if isinstance(document, StudyResults) and document.comparisons:
        yield comparison_section(document.comparisons)
    first_pass = record.priced if record else None
    if first_pass is not None and first_pass.point < len(document.points):
        yield from pass_sections(first_pass, point_name(document.points[first_pass.point]))
    measured = document.points if isinstance(document, StudyResults) else ()
    yield ran_section((point.capture for point in measured), first_pass)
    yield from _about(document, record)


def _about(document: Reported, record: Record | None) -> Iterator[Section]:
    """Hardware and sources, and how to repeat the study."""
    if record is None:
        yield Section("hardware", "The hardware, and what its numbers rest on", text=(OLD,))
    else:
        yield hardware_section(record)
    yield repeat_section(record, dict(document.versions), document.key)
