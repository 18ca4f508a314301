"""Image classification on folders, one for each class, as `imagefolder:FOLDER`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput
from ohmformer.models.images import SUFFIXES, Images
from ohmformer.models.preprocessing import Preparation, images_of, preparation
from ohmformer.models.sources import existing, first_line, home_expanded, is_file, is_folder
from ohmformer.tasks.load import Reading, Task
from ohmformer.tasks.metric import goes_with
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.splits import calibration_size, in_hash_order, split

TRAIN, TEST = ("train",), ("val", "validation", "test")
"""Names of folders that are splits, not classes; of several the first."""

NO_CLASSES = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
"""Folders that archives and file systems add."""

OTHERS = {".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".tga"}
"""Images of kinds that are not read, in lower case; how many there are is noted."""

MOST_CLASSES = 1_000_000
"""Numbers of classes are below this."""

LISTED = 3
"""So many names are shown of a longer list."""


@dataclass(frozen=True)
class Files:
    """Images of one folder, with their classes; -1 where there are none.

    Attributes:
        root: the folder.
        files: of the images.
        classes: one for each.
        others: images beside them of kinds that are not read.
    """

    root: Path
    files: list[Path]
    classes: list[int]
    others: tuple[Path, ...] = ()

    def part(self, places: list[int]) -> Files:
        """Those at some places."""
        classes = [self.classes[place] for place in places]
        return Files(self.root, [self.files[place] for place in places], classes, self.others)

    @property
    def notes(self) -> tuple[str, ...]:
        """How many images are left out."""
        kinds = ", ".join(sorted({file.suffix.lower() for file in self.others}))
        return (f"{len(self.others)} images in {self.root} are of kinds that are not read ({kinds})",) if kinds else ()

    @property
    def names(self) -> list[str]:
        """Paths within the folder."""
        return [file.relative_to(self.root).as_posix() for file in self.files]

    @property
    def labels(self) -> Tensor:
        """[N] int64."""
        return torch.tensor(self.classes, dtype=torch.int64)


def folder_task(choice: TaskChoice, model: nn.Module | None) -> Task:
    """Photographs of a folder as a task for a model.

    The folder holds one folder for each class, or `train` and `val` (or `test`) with such folders in each; for the
    metric `fidelity` images without classes will do. Classes are numbered in the sorted order of their folders' names.

    Raises:
        BadInput: no images, folders that do not fit the model's classes, or a model that is not for images.
    """
    root = existing("task", choice.source, folder=True)
    prepared = preparation(model)
    reader = images_of(model, choice.source)
    if not goes_with(choice.metric, "imagefolder", ("top1", "top5", "fidelity")):
        raise BadInput(f"task.metric = {choice.metric!r}: images have top1, top5 or fidelity; choose one of them")
    metric = choice.metric or "top1"
    calibration, train, test = _parts(choice, root, prepared, metric)
    test = test.part(list(range(len(test.files)))[: choice.limit]) if choice.limit else test
    shown = [part for part in (test, calibration, train) if part.files]
    images = {id(part): Images(part.files, reader).load() for part in shown}
    return Task(
        choice.source,
        images[id(test)],
        test.labels,
        images[id(calibration)],
        calibration.labels,
        metric=metric,
        train=(images[id(train)], train.labels) if train.files else None,
        reading=Reading(pooling=choice.pooling),
        notes=tuple(dict.fromkeys(note for part in (test, calibration, train) for note in part.notes)),
    ).first(choice.limit)


def _parts(choice: TaskChoice, root: Path, prepared: Preparation, metric: str) -> tuple[Files, Files, Files]:
    """Calibration, training and test images."""
    train_root, test_root = _inside(root, TRAIN), _inside(root, TEST)
    numbered = metric != "fidelity"
    if train_root is None or test_root is None:
        found = _files(choice, test_root or root, prepared, numbered)
        parts = split(choice, found.names)
        return found.part(parts.calibration), found.part(parts.train), found.part(parts.test)
    test, other = (_files(choice, part, prepared, numbered) for part in (test_root, train_root))
    order = in_hash_order(other.names)
    count = calibration_size(choice, len(order))
    training = order[count:][: choice.train] if choice.probe else []
    return other.part(order[:count]), other.part(training), test.part(in_hash_order(test.names))


def _inside(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if is_folder(root / name)), None)


@dataclass
class _Found:
    """What lies in a folder: folders directly in it, images in it or below it, and images that are not read."""

    folders: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def _walk(choice: TaskChoice, folder: Path, *, deep: bool) -> _Found:
    """What lies in a folder, and in those below it where `deep`; in the order of names.

    What a system or a program keeps beside the images is left out: names that begin with a dot (`.DS_Store`, `._a.png`,
    `.ipynb_checkpoints`), and folders such as `__MACOSX`. Links to folders below are not followed: they may lead back.

    Raises:
        BadInput: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        why = f"cannot be read ({error.strerror}); change its permissions"
        raise BadInput(f"{choice.where}: {error.filename or folder} {why}") from error

    found = _Found()
    for place, inside, files in os.walk(folder, onerror=fail):
        inside[:] = sorted(name for name in inside if not _hidden(name))
        if place == str(folder):
            found.folders = [folder / name for name in inside]
        for name in files:
            kind = Path(name).suffix.lower()
            if kind in SUFFIXES | OTHERS and not _hidden(name):
                (found.images if kind in SUFFIXES else found.others).append(Path(place) / name)
        if not deep:
            break
    found.images.sort()
    return found


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in NO_CLASSES


def _files(choice: TaskChoice, root: Path, prepared: Preparation, numbered: bool) -> Files:
    top = _walk(choice, root, deep=False)
    inside = {folder: _walk(choice, folder, deep=True) for folder in top.folders}
    by_folder, loose = {folder: found.images for folder, found in inside.items()}, top.images
    others = tuple(file for found in (top, *inside.values()) for file in found.others)
    where = choice.where
    kinds = ", ".join(sorted(SUFFIXES))
    if not loose and not any(by_folder.values()):
        raise BadInput(f"{where}: {root} holds no images ({kinds}); put one folder for each class there")
    if not numbered:
        files = [*loose, *(file for found in by_folder.values() for file in found)]
        return Files(root, files, [-1] * len(files), others)
    if empty := [folder.name for folder, found in by_folder.items() if not found]:
        raise BadInput(f"{where}: the folder {empty[0]} in {root} holds no images ({kinds}); remove it or fill it")
    if not by_folder:
        raise BadInput(f"{where}: {root} holds images but no folders; sort them into one folder for each class")
    numbers = _numbers(choice, [folder.name for folder in by_folder], prepared)
    pairs = [(file, numbers[folder.name]) for folder, found in by_folder.items() for file in found]
    return Files(root, [file for file, _ in pairs], [number for _, number in pairs], others)


def _numbers(choice: TaskChoice, names: list[str], prepared: Preparation) -> dict[str, int]:
    """Class of each folder: by the labels file, by the model's own names, or by sorted order."""
    known = read_labels(choice.labels) if choice.labels else {}
    if not known and prepared.names and set(names) <= set(prepared.names):
        known = {name: number for number, name in enumerate(prepared.names)}
    if known:
        unknown = [name for name in names if name not in known]
        if unknown:
            raise BadInput(f"task.labels = {choice.labels!r}: does not name the folder {unknown[0]!r}; add it")
    elif prepared.classes is not None and len(names) != prepared.classes and not choice.probe:
        raise BadInput(
            f"{choice.where}: has {len(names)} class folders ({_some(names)}) but the model tells "
            f"{prepared.classes} classes apart; name the model's classes in a file, task.labels = 'FILE', or set "
            "task.probe = true"
        )
    else:
        known = {name: number for number, name in enumerate(names)}
    high = max(known[name] for name in names)
    if prepared.classes is not None and not choice.probe and high >= prepared.classes:
        raise BadInput(
            f"task.labels = {choice.labels!r}: numbers a class {high} but the model has {prepared.classes}; correct it"
        )
    return known


def read_labels(file: str) -> dict[str, int]:
    """Name of a folder or label -> number of the class, of a labels file.

    A JSON file holds a table of name and number. Any other file has one class a line, in the order of the numbers; of a
    line with several words the first one is the name, as in ImageNet's lists of synsets.

    Raises:
        BadInput: it cannot be read, or is neither.
    """
    path = home_expanded(file)
    if not is_file(path):
        raise BadInput(f"task.labels = {file!r}: cannot be read (there is no such file); correct the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if file.endswith(".json") else None
    except (OSError, ValueError, RecursionError) as error:
        why = first_line(error)
        raise BadInput(f"task.labels = {file!r}: cannot be read ({why}); give one class name a line") from error
    if content is None:
        lines = [line.split()[0] for line in text.splitlines() if line.strip()]
        if len(set(lines)) != len(lines) or not lines:
            raise BadInput(f"task.labels = {file!r}: is empty or names a class twice; give one class name a line")
        return {name: number for number, name in enumerate(lines)}
    numbers = content.values() if isinstance(content, dict) else [None]
    if not content or not all(type(number) is int and 0 <= number < MOST_CLASSES for number in numbers):
        raise BadInput(f'task.labels = {file!r}: is no table of names and numbers from 0 on; write {{"name": 0}}')
    return dict(content)


def _some(names: list[str]) -> str:
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
