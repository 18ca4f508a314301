"""Collects the keys of all works that a study rests on. Free of torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ohmformer.mitigation.budget import KVBudget
from ohmformer.mitigation.spec import Conditioning, KVClip, WeightMitigation
from ohmformer.report.citations.bibliography import as_text, bibliography
from ohmformer.schema import Spec, load
from ohmformer.study.read_study import locate_study, make_whole, read_document
from ohmformer.study.search.request import request_of
from ohmformer.study.spec import Mitigation, Whole
from ohmformer.workload.shapes import PREFIX, Transformer

OWN = "ohmformer"
TASKS = {"bundled:fashion-mnist": "fashionmnist", "bundled:northanger-abbey": "austen1817"}
"""Source of a task -> key of the data."""


def references(study: str, sets: list[str], form: str) -> tuple[str, list[str]]:
    """All works that a study rests on, once each, sorted by key, ours first.

    Args:
        study: file or name of a study.
        sets: changes PATH=VALUE.
        form: `bibtex` or `text`.

    Returns:
        The references, and a line for each key that no `sources.bib` has.

    Raises:
        BadInput: the study cannot be read.
    """
    file, used = locate_study(study), dict[str, str]()
    for settings in _all_settings(file, sets):
        for key, where in _keys(settings):
            used.setdefault(key, where)
    known = bibliography([file.parent])
    lines = [
        f"{file}: {where}: source = {key!r}: is in no sources.bib; add its entry to {file.parent / 'sources.bib'}"
        for key, where in sorted(used.items())
        if key not in known
    ]
    keys = [OWN, *sorted(key for key in used if key in known and key != OWN)]
    if form == "text":
        return "".join(f"[{key}] {as_text(known[key])}\n" for key in keys), lines
    return "\n\n".join(known[key] for key in keys) + "\n", lines


def _all_settings(file: Path, sets: list[str]) -> Iterator[Whole]:
    """The settings of all points; of a search also those of designs in which every value of every choice occurs."""
    document = read_document(file)
    yield from (point.settings for point in make_whole(document, sets, where=str(file), folder=file.parent).points)
    if "search" in document:
        yield from request_of(document, sets, where=str(file), folder=file.parent).checked


def _keys(settings: Whole) -> Iterator[tuple[str, str]]:
    """(key, path of the value that names it) of one point."""
    yield from _of_spec(settings, "")
    source = settings.model.source
    if source.startswith(PREFIX):
        yield from _of_spec(load(Transformer, source.removeprefix(PREFIX)), "model.")
    if settings.task is not None and settings.task.source in TASKS:
        yield TASKS[settings.task.source], "task.source"
    for key in _of_mitigation(settings.mitigation):
        yield key, "mitigation"


def _of_spec(value: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Sources in a specification, at any depth, in lists too."""
    if isinstance(value, Spec):
        for name, source in value.provenance:
            if source.source:
                yield source.source, f"{prefix}{name}"
        for name in type(value).model_fields:
            if name != "provenance":
                yield from _of_spec(getattr(value, name), f"{prefix}{name}.")
    elif isinstance(value, tuple):
        for item in value:
            yield from _of_spec(item, prefix)


def _of_mitigation(mitigation: Mitigation) -> Iterator[str]:
    """Papers whose methods a mitigation uses, or compares if calibration chooses."""
    kv, weights = mitigation.kv, mitigation.fixed_weights
    chooses = mitigation.chooses_kv or isinstance(kv, KVBudget)
    if isinstance(mitigation.clip, KVClip) or mitigation.clip == "calibrated" or chooses:
        yield "clipformer2024"
    if chooses or (isinstance(kv, Conditioning) and kv.basis == "hadamard") or _uses(mitigation, "rotate"):
        yield "quarot2024"
    if weights.scaling is not None or mitigation.weights == "auto":
        yield "smoothquant2023"
    if mitigation.weights == "auto" or (weights.residual is not None and weights.residual.feedback):
        yield "gptq2023"


def _uses(mitigation: Mitigation, field: str) -> bool:
    """True if weights use a method, or calibration may choose it."""
    weights: WeightMitigation = mitigation.fixed_weights
    return mitigation.weights == "auto" or bool(getattr(weights, field))
