"""Reads a study file, and checks all its points before the first one runs. Free of torch.

Both halves read a file in the same way, so they have the same points in the same order. A file is checked as a whole,
whichever half reads it; each half then takes its fields.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ohmformer import catalog
from ohmformer.errors import BadInput, cut, shown, suggest
from ohmformer.schema import validate
from ohmformer.study.results.collection import no_garbage
from ohmformer.study.spec import CostSettings, Point, S, Settings, Study, Whole
from ohmformer.study.sweep import SECTIONS, Document, Sweep, check_reaches, has, opened, parse_sets, put
from ohmformer.terminal.progress import bar
from ohmformer.workload.shapes import PREFIX

MOST_POINTS = 100_000
"""Maximum number of points of a study."""

OTHER_KINDS = {
    **dict.fromkeys(("cell", "array", "accelerator", "shapes"), "give a study, or take `ohmformer show {}`"),
    "claim": "give a study, or take `ohmformer validate` for papers of the library",
}
"""Table of a file that is not a study -> what to do with such a file."""

MANY = 200
"""Number of points from which on a progress bar is shown."""


def locate_study(name: str) -> Path:
    """The file of a study, by path or by name.

    Raises:
        BadInput: there is none.
    """
    studies = {**catalog.entries("study"), **catalog.entries("costs")}
    if name in studies or name.endswith(".toml"):
        return studies.get(name) or catalog.find("study", name)
    if catalog.looks_like_path(name):
        raise BadInput(
            f"{cut(name)}: is not a .toml file; give the path of a study file, or the name of a library study"
        )
    raise BadInput(
        f"{cut(name) or shown(name)}: is not a study of the library; {suggest(name, list(studies))}, or the path of a "
        ".toml file"
    )


def read_document(file: Path) -> Document:
    """The content of a study file.

    Raises:
        BadInput: the file cannot be read, or it holds a library entry of another kind, or claims of a paper.
    """
    document = catalog.read(file)
    if kind := next((kind for kind in OTHER_KINDS if kind in document and kind not in SECTIONS), ""):
        remedy = OTHER_KINDS[kind].format(file)
        raise BadInput(f"{file}: is a file of kind {kind}, not a study; {remedy}")
    return document


def read_whole(name: str, sets: Sequence[str] = ()) -> Study[Whole]:
    """Read a study file or library entry, with changes, for both halves.

    Args:
        name: a path that ends in .toml, or the name of a study in the library.
        sets: changes 'PATH=VALUE' with the paths of the file. In a sweep of that path they replace its values.

    Raises:
        BadInput: the file or a change cannot be used; one line with file, path, value and remedy.
    """
    file = locate_study(name)
    return make_whole(read_document(file), sets, where=str(file), folder=file.parent)


def read_study(name: str, sets: Sequence[str] = ()) -> Study[Settings]:
    """The accuracy half of a study file, or of a library entry, with changes; see `read_whole`.

    Raises:
        BadInput: the file or a change cannot be used; one line with file, path, value and remedy.
    """
    return read_both(name, sets)[0]


def read_both(name: str, sets: Sequence[str] = ()) -> tuple[Study[Settings], Study[Whole]]:
    """The accuracy half of a study, see `read_study`, and the whole study.

    Raises:
        BadInput: as `read_study`.
    """
    if name in catalog.entries("costs"):
        raise BadInput(f"{name}: is a study of cost alone; take `ohmformer cost {name}`, or `ohmformer compare`")
    whole = read_whole(name, sets)
    return accuracy_half(whole), whole


def make_study(
    document: Document, sets: Sequence[str] = (), *, where: str = "study", folder: Path | None = None
) -> Study[Settings]:
    """The accuracy half of a document; `where` names it in messages, hardware files are looked up in `folder` first."""
    return accuracy_half(make_whole(document, sets, where=where, folder=folder))


def make_whole(
    document: Document, sets: Sequence[str] = (), *, where: str = "study", folder: Path | None = None
) -> Study[Whole]:
    """All points of a document, each with the settings of both halves.

    Raises:
        BadInput: one line with `where`, path, value and remedy.
    """
    changes: list[tuple[str, Any]] = []
    try:
        changes = parse_sets(sets)
        study = _make(dict(document), changes, folder or Path())
    except BadInput as error:
        named = str(error).partition(" = ")[0].partition(":")[0]
        by_set = any(named == path or named.startswith(f"{path}.") for path, _ in changes)
        raise BadInput(f"{where}: {error}{' (set by --set)' if by_set else ''}") from error.__cause__
    return replace(study, where=where)


def accuracy_half(study: Study[Whole]) -> Study[Settings]:
    """The same points, with the settings of the accuracy half.

    Raises:
        BadInput: one of them has no task, or a clip that does not fit its arrays.
    """
    return _half(study, Whole.accuracy)


def cost_half(study: Study[Whole]) -> Study[CostSettings]:
    """The same points, with the settings of the cost half."""
    return _half(study, Whole.costs)


def _half(study: Study[Whole], settings: Callable[[Whole], S]) -> Study[S]:
    try:
        with no_garbage():
            points = tuple(Point(point.set, point.label, settings(point.settings)) for point in study.points)
    except BadInput as error:
        raise BadInput(f"{study.where}: {error}") from error.__cause__
    return Study(study.name, points, study.where)


def _make(document: Document, sets: list[tuple[str, Any]], folder: Path) -> Study[Whole]:
    name, sweeps = opened(document)
    for path, value in sets:
        document, sweeps = _changed(document, sweeps, path, value)
    total = sum(sweep.size for sweep in sweeps)
    if total > MOST_POINTS:
        raise BadInput(f"sweep: makes more than {MOST_POINTS:,} points; give fewer values, or several studies")
    first = _own_settings(document, next(sweeps[0].sets()), folder)
    swept = {_head(path) for sweep in sweeps for path, _ in sweep.axes}
    checked = {section: getattr(first, section) for section in document if section not in swept}
    points = _Points({**document, **checked}, folder)
    with bar("points read", total, show=total >= MANY) as display, no_garbage():
        for sweep in sweeps:
            for values in sweep.sets():
                points.add(sweep.label, values)
                display.advance()
    return Study(name, tuple(points.points))


class _Points:
    """Points of a document; sections that have been checked with the same values are not checked again."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.document, self.folder = document, folder
        self.points: list[Point[Whole]] = []
        self.checked: dict[tuple[str, str], Any] = {}

    def add(self, label: str, values: Document) -> None:
        """Check and add the point with these values."""
        groups: dict[str, Document] = {}
        for path, value in values.items():
            groups.setdefault(_head(path), {})[path] = value
        keys = {head: (head, repr(changes)) for head, changes in groups.items()}
        document = self.document
        for head, changes in groups.items():
            if (section := self.checked.get(keys[head])) is not None:
                document = {**document, head: section}
            else:
                document = _with(document, changes)
        settings = whole_settings(document, self.folder)
        for head, key in keys.items():
            self.checked[key] = getattr(settings, head)
        self.points.append(Point(values, label, settings))


def _head(path: str) -> str:
    """The section that a path starts with."""
    return path.split(".")[0]


def _changed(document: Document, sweeps: list[Sweep], path: str, value: Any) -> tuple[Document, list[Sweep]]:
    """Document and sweeps after one --set; sweeps with a label stay unchanged, so that the label stays true."""
    axes = {axis for sweep in sweeps if not sweep.label for axis, _ in sweep.axes}
    named = {axis for sweep in sweeps if sweep.label for axis, _ in sweep.axes}
    if path in named - axes:
        raise BadInput(f"--set {path}: a labeled sweep sets this path; edit the sweep in the file")
    check_reaches(path, axes | named)
    if path not in axes or not isinstance(value, list):
        document = put(document, path, value)
    return document, [sweep if sweep.label else sweep.pinned(path, value) for sweep in sweeps]


def _own_settings(document: Document, values: Document, folder: Path) -> Whole:
    """The settings of a document with swept values at paths where it has none, so that all its own values are checked.

    Raises:
        BadInput: its own values are wrong, beside these and by themselves.
    """
    missing = {path: value for path, value in values.items() if not has(document, path)}
    try:
        return whole_settings(_with(document, missing), folder)
    except BadInput as error:
        if not missing or len(missing) == len(values):
            raise
        try:  # own and swept values need not go together, since no point has both
            return whole_settings(document, folder)
        except BadInput:
            raise error from error.__cause__


def _with(document: Document, values: Document) -> Document:
    for path, value in values.items():
        document = put(document, path, value)
    return document


def whole_settings(document: Document, folder: Path | None = None) -> Whole:
    """The settings of a document without name and sweep.

    Raises:
        BadInput: one line with path, value and remedy.
    """
    content = dict(document)
    if folder is not None and isinstance(content.get("model"), dict):
        content["model"] = _beside(content["model"], folder)
    check_base(content)
    return validate(Whole, content, where="", folder=folder)


def _beside(model: Document, folder: Path) -> Document:
    """The model with the path of its table of dimensions, if the table lies beside the study."""
    source = model.get("source")
    if isinstance(source, str) and source.startswith(PREFIX) and source.endswith(".toml"):
        file = folder / source.removeprefix(PREFIX)
        if os.path.isfile(file):
            return {**model, "source": f"{PREFIX}{file}"}
    return model


def check_base(document: Document) -> None:
    """Refuse hardware that has only changes.

    Raises:
        BadInput: `hardware.base` is missing.
    """
    hardware = document.get("hardware", {})
    if isinstance(hardware, dict) and not {"base", "projection", "attention"} & set(hardware):
        raise BadInput(f"hardware.base: is missing; name one of: {', '.join(catalog.entries('accelerator'))}")
