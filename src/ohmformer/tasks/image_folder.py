"""Image classification, from a folder with one subfolder per class: `imagefolder:FOLDER`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ohmformer.errors import BadInput, shown
from ohmformer.models.class_names import canonical_name, numbers_of_names
from ohmformer.models.images import SUFFIXES, Images
from ohmformer.models.preprocessing import Preparation, images_of, preparation
from ohmformer.models.sources import existing, first_line, is_file, is_folder
from ohmformer.tasks.metric_kinds import is_allowed, label_kind
from ohmformer.tasks.reading import Reading
from ohmformer.tasks.spec import TaskChoice
from ohmformer.tasks.splits import calibration_size, in_hash_order, split
from ohmformer.tasks.task import Task
from ohmformer.textfiles import home_expanded, read_text

TRAIN, TEST = ("train",), ("val", "validation", "test")
"""Names of folders that hold a split, not a class. If several exist, the first one counts."""

SYSTEM_FOLDERS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"}
"""Folders that archives and file systems add; they are ignored."""

UNREAD_SUFFIXES = {".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".tga"}
"""Image formats that are not read, in lower case; a note counts these files."""

MAX_CLASSES = 1_000_000
"""Class numbers are below this."""

LISTED = 3
"""Number of names that a message shows of a longer list."""


@dataclass(frozen=True)
class Files:
    """Image files of one folder, with their classes.

    Attributes:
        root: the folder.
        files: paths of the images.
        classes: class number of each image; -1 if it has none.
        unread: images in formats that are not read.
    """

    root: Path
    files: list[Path]
    classes: list[int]
    unread: tuple[Path, ...] = ()

    def subset(self, indices: list[int]) -> Files:
        """Return the files at some positions."""
        classes = [self.classes[index] for index in indices]
        return Files(self.root, [self.files[index] for index in indices], classes, self.unread)

    @property
    def notes(self) -> tuple[str, ...]:
        """A remark that counts the images that are not read; empty if there are none."""
        formats = ", ".join(sorted({file.suffix.lower() for file in self.unread}))
        return (f"{len(self.unread)} images in {self.root} are left out: {formats} is not read",) if formats else ()

    @property
    def names(self) -> list[str]:
        """Paths of the images relative to the folder."""
        return [file.relative_to(self.root).as_posix() for file in self.files]

    @property
    def labels(self) -> Tensor:
        """Class numbers [N] int64."""
        return torch.tensor(self.classes, dtype=torch.int64)


def folder_task(choice: TaskChoice, model: nn.Module | None) -> Task:
    """Read a folder of images as a task for a model.

    The folder holds one subfolder per class, or `train` and `val` (or `test`) with such subfolders in each. The metric
    `fidelity` also takes images without classes. Classes are numbered in the sorted order of the subfolders' names.

    Args:
        choice: the task; its source is the folder.
        model: a model from `load_model` that takes images.

    Raises:
        BadInput: there are no images, the subfolders do not fit the model's classes, or the model does not take images.
    """
    root = existing("task", choice.source, folder=True)
    prepared = preparation(model)
    reader = images_of(model, choice.source)
    if not is_allowed(choice.metric, "imagefolder", ("top1", "top5", "fidelity")):
        raise BadInput(f"task.metric = {shown(choice.metric)}: images have top1, top5 or fidelity; choose one of them")
    metric = choice.metric or "top1"
    calibration, train, test = _parts(choice, root, prepared, metric)
    test = test.subset(list(range(len(test.files)))[: choice.limit]) if choice.limit else test
    nonempty = [part for part in (test, calibration, train) if part.files]
    images = {id(part): Images(part.files, reader).load() for part in nonempty}
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
    """Return the calibration, training and test images."""
    train_root, test_root = _subfolder(root, TRAIN), _subfolder(root, TEST)
    numbered = label_kind(metric) != "none"
    if train_root is None or test_root is None:
        (files,) = _files(choice, [test_root or root], prepared, numbered)
        parts = split(choice, files.names)
        return files.subset(parts.calibration), files.subset(parts.train), files.subset(parts.test)
    train, test = _files(choice, [train_root, test_root], prepared, numbered)
    order = in_hash_order(train.names)
    count = calibration_size(choice, len(order))
    probe_order = order[count:][: choice.train] if choice.probe else []
    return train.subset(order[:count]), train.subset(probe_order), test.subset(in_hash_order(test.names))


def _subfolder(root: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first of some subfolders that exists."""
    return next((root / name for name in names if is_folder(root / name)), None)


@dataclass
class _Contents:
    """Contents of a folder: its direct subfolders, its images, and images in formats that are not read."""

    folders: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    unread: list[Path] = field(default_factory=list)


def _walk(choice: TaskChoice, folder: Path, *, deep: bool) -> _Contents:
    """List a folder in the order of names, with its subfolders if `deep`.

    Hidden files and folders (`.DS_Store`, `._a.png`, `.ipynb_checkpoints`) and system folders such as `__MACOSX` are
    ignored. Symbolic links to folders are not followed, since they may form a cycle.

    Raises:
        BadInput: a folder cannot be read.
    """

    def fail(error: OSError) -> None:
        why = f"cannot be read ({error.strerror}); change its permissions"
        raise BadInput(f"{choice.where}: {error.filename or folder} {why}") from error

    contents = _Contents()
    for parent, subfolders, files in os.walk(folder, onerror=fail):
        subfolders[:] = sorted(name for name in subfolders if not _is_ignored(name))
        if parent == str(folder):
            contents.folders = [folder / name for name in subfolders]
        for name in files:
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES | UNREAD_SUFFIXES and not _is_ignored(name):
                (contents.images if suffix in SUFFIXES else contents.unread).append(Path(parent) / name)
        if not deep:
            break
    contents.images.sort()
    return contents


def _is_ignored(name: str) -> bool:
    """True for names of hidden files and folders, and of system folders."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _files(choice: TaskChoice, roots: list[Path], prepared: Preparation, numbered: bool) -> list[Files]:
    """List the images of some folders; `numbered` images belong to subfolders, one per class.

    A class has the same number in all folders, also where a folder lacks some of the classes.
    """
    listed = [_listed(choice, root, numbered) for root in roots]
    first = {canonical_name(name): name for images in reversed(listed) for name in images.by_class}  # as in the first
    class_of = _classes(choice, sorted(first.values()), prepared) if numbered else {}
    number = {canonical_name(name): found for name, found in class_of.items()}
    parts = []
    for root, images in zip(roots, listed, strict=True):
        pairs = [(file, number[canonical_name(name)]) for name, files in images.by_class.items() for file in files]
        pairs += [(file, -1) for file in images.without_class]
        parts.append(Files(root, [file for file, _ in pairs], [found for _, found in pairs], images.unread))
    return parts


@dataclass(frozen=True)
class _Listed:
    """Images of one folder: by the names of their classes or without a class, and in formats that are not read."""

    by_class: dict[str, list[Path]]
    without_class: list[Path]
    unread: tuple[Path, ...]


def _listed(choice: TaskChoice, root: Path, numbered: bool) -> _Listed:
    """List the images of a folder; `numbered` images belong to subfolders, one per class."""
    top = _walk(choice, root, deep=False)
    below = {folder: _walk(choice, folder, deep=True) for folder in top.folders}
    by_folder = {folder: contents.images for folder, contents in below.items()}
    unread = tuple(file for contents in (top, *below.values()) for file in contents.unread)
    where = choice.where
    suffixes = ", ".join(sorted(SUFFIXES))
    if not top.images and not any(by_folder.values()):
        raise BadInput(f"{where}: {root} holds no images ({suffixes}); put one folder for each class there")
    if not numbered:
        return _Listed({}, [*top.images, *(file for images in by_folder.values() for file in images)], unread)
    if empty := [folder.name for folder, images in by_folder.items() if not images]:
        raise BadInput(f"{where}: the folder {empty[0]} in {root} holds no images ({suffixes}); remove it or fill it")
    if not by_folder:
        raise BadInput(f"{where}: {root} holds images but no folders; sort them into one folder for each class")
    return _Listed({folder.name: images for folder, images in by_folder.items()}, [], unread)


def _classes(choice: TaskChoice, names: list[str], prepared: Preparation) -> dict[str, int]:
    """Return folder name -> class number: from the labels file, the model's class names or the sorted order.

    Raises:
        BadInput: the labels file lacks a folder, or the numbers do not fit the model's classes.
    """
    known = read_labels(choice.labels) if choice.labels else {}
    if known:
        known = {name: known[canonical_name(name)] for name in names if canonical_name(name) in known}
    elif prepared.names and set(map(canonical_name, names)) <= set(map(canonical_name, prepared.names)):
        known = numbers_of_names(choice.where, names, prepared.names)
    if known or choice.labels:
        unknown = [name for name in names if name not in known]
        if unknown:
            raise BadInput(f"task.labels = {shown(choice.labels)}: lacks the folder {shown(unknown[0])}; add it")
    elif prepared.classes is not None and len(names) != prepared.classes and not choice.probe:
        raise BadInput(
            f"{choice.where}: has {len(names)} class folders ({_first_names(names)}) but the model has "
            f"{prepared.classes} classes; name the model's classes in a file, task.labels = 'FILE', or set "
            "task.probe = true"
        )
    else:
        known = {name: number for number, name in enumerate(names)}
    high = max(known[name] for name in names)
    if prepared.classes is not None and not choice.probe and high >= prepared.classes:
        raise BadInput(
            f"task.labels = {shown(choice.labels)}: has class {high}, the model {prepared.classes} classes; correct it"
        )
    return known


def read_labels(file: str) -> dict[str, int]:
    """Read a labels file: name of a folder or label -> class number.

    A JSON file holds a table from name to number. Any other file has one class per line, in the order of the numbers;
    its name is the line or, if no two lines share theirs, the first word, as in ImageNet's lists of synsets.

    Raises:
        BadInput: the file cannot be read, or has neither format.
    """
    path = home_expanded(file)
    if not is_file(path):
        raise BadInput(f"task.labels = {shown(file)}: cannot be read (there is no such file); correct the path")
    try:
        text = read_text(path)
        content = json.loads(text, object_pairs_hook=_without_duplicates) if file.endswith(".json") else None
    except BadInput as error:
        raise BadInput(f"task.labels = {shown(file)}: {str(error).removeprefix(f'{path}: ')}") from error
    except (ValueError, RecursionError) as error:
        why = first_line(error)
        raise BadInput(f"task.labels = {shown(file)}: cannot be read ({why}); write one class name per line") from error
    if content is None:
        lines = [canonical_name(line.strip()) for line in text.splitlines() if line.strip()]
        words = [line.split()[0] for line in lines]
        if len(set(lines)) != len(lines) or not lines:
            raise BadInput(
                f"task.labels = {shown(file)}: is empty or names a class twice; write one class name per line"
            )
        by_word = words if len(set(words)) == len(words) else []
        return {name: number for names in (by_word, lines) for number, name in enumerate(names)}
    numbers = content.values() if isinstance(content, dict) else [None]
    if not content or not all(type(number) is int and 0 <= number < MAX_CLASSES for number in numbers):
        raise BadInput(f'task.labels = {shown(file)}: is not a table from names to numbers from 0; write {{"name": 0}}')
    return {canonical_name(name): number for name, number in content.items()}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a table of JSON.

    Raises:
        ValueError: a key stands there twice.
    """
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("names a class twice")
    return table


def _first_names(names: list[str]) -> str:
    """Return the first names of a list, for a message."""
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "")
