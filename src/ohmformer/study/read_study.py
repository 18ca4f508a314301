"""Reading a study file: every point of it is checked before the first one runs. Free of torch.

Both halves read the same file the same way: the same sweeps, the same changes, the same points in the same order. Each
half makes its own settings of a point, and leaves out what only the other half reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ohmformer import catalog
from ohmformer.errors import BadInput
from ohmformer.schema import validate
from ohmformer.study.spec import CostSections, Point, S, Settings, Study
from ohmformer.study.sweep import COST_ONLY, Document, Sweep, check_reaches, has, opened, parse_set, put

MODEL_OF_COST = ("seq_len", "batch", "phase", "context", "steps")
"""What the cost half alone is told of the model."""


MOST_POINTS = 100_000
"""Points of a study at most."""


def read_study(name: str, sets: Sequence[str] = ()) -> Study[Settings]:
    """The accuracy half of a study file, or of a library entry, with changes.

    Args:
        name: a path that ends in .toml, or the name of a study in the library.
        sets: changes 'PATH=VALUE' with the paths of the file. In a sweep of that path they replace its values.

    Raises:
        BadInput: anything in it that cannot be used: one line with file, path, value and remedy.
    """
    if name in catalog.entries("costs"):
        raise BadInput(f"{name}: is a study of cost alone; take `ohmformer cost {name}`, or `ohmformer compare`")
    file = catalog.find("study", name)
    return make_study(catalog.read(file), sets, where=str(file), folder=file.parent)


def make_study(
    document: Document, sets: Sequence[str] = (), *, where: str = "study", folder: Path | None = None
) -> Study[Settings]:
    """The accuracy half of a document; `where` names it in messages, hardware files are looked up in `folder` first."""
    return points_of(document, sets, settings, where=where, folder=folder)


def points_of(
    document: Document,
    sets: Sequence[str],
    settings: Callable[[Document, Path], S],
    *,
    where: str,
    folder: Path | None,
) -> Study[S]:
    """The points of a document, with the settings that one half makes of each.

    Raises:
        BadInput: one line with `where`, path, value and remedy.
    """
    try:
        study = _make(dict(document), [parse_set(text) for text in sets], settings, folder or Path())
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error.__cause__
    return replace(study, where=where)


def _make(
    document: Document, sets: list[tuple[str, Any]], settings: Callable[[Document, Path], S], folder: Path
) -> Study[S]:
    name, sweeps = opened(document)
    for path, value in sets:
        document, sweeps = _changed(document, sweeps, path, value)
    _check_count(sweeps)
    settings(_filled(document, next(sweeps[0].sets())), folder)
    rows = [(sweep.label, values) for sweep in sweeps for values in sweep.sets()]
    return Study(name, tuple(Point(values, label, settings(_with(document, values), folder)) for label, values in rows))


def _changed(document: Document, sweeps: list[Sweep], path: str, value: Any) -> tuple[Document, list[Sweep]]:
    """Document and sweeps after one --set; sweeps with a label stay what they are called."""
    axes = {axis for sweep in sweeps if not sweep.label for axis, _ in sweep.axes}
    named = {axis for sweep in sweeps if sweep.label for axis, _ in sweep.axes}
    if path in named - axes:
        raise BadInput(f"--set {path}: only labelled sweeps set it, each as its label says; change them in the file")
    check_reaches(path, axes | named)
    if path not in axes or not isinstance(value, list):
        document = put(document, path, value)
    return document, [sweep if sweep.label else sweep.pinned(path, value) for sweep in sweeps]


def _check_count(sweeps: Sequence[Sweep]) -> None:
    """Refuse more points than anyone waits for, before they are made."""
    total = 0
    for sweep in sweeps:
        points = 1
        for _, values in sweep.axes:
            points = min(points * len(values), MOST_POINTS + 1)
        total += points
    if total > MOST_POINTS:
        raise BadInput(f"sweep: makes more than {MOST_POINTS:,} points; leave out values, or split it into studies")


def _filled(document: Document, values: Document) -> Document:
    """The document, completed by swept values where it has none: so that what a sweep overwrites is checked as well."""
    for path, value in values.items():
        if not has(document, path):
            document = put(document, path, value)
    return document


def _with(document: Document, values: Document) -> Document:
    for path, value in values.items():
        document = put(document, path, value)
    return document


def settings(document: Document, folder: Path) -> Settings:
    """The settings of the accuracy half, of a document without name and sweep.

    Raises:
        BadInput: one line with path, value and remedy.
    """
    own = {name: value for name, value in document.items() if name not in COST_ONLY}
    if isinstance(model := own.get("model"), dict):
        own["model"] = {name: value for name, value in model.items() if name not in MODEL_OF_COST}
    check_base(own)
    found = validate(Settings, own, where="", folder=folder)
    others = {name: document[name] for name in ("model", *COST_ONLY) if name in document}
    validate(CostSections, others, where="", folder=folder)
    return found


def check_base(document: Document) -> None:
    """Refuse hardware that is nothing but changes.

    Raises:
        BadInput: it says of what.
    """
    hardware = document.get("hardware", {})
    if isinstance(hardware, dict) and not {"base", "projection", "attention"} & set(hardware):
        raise BadInput(f"hardware.base: is missing; name one of: {', '.join(catalog.entries('accelerator'))}")
