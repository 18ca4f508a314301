"""Photographs in folders by class, for training: which are learned from, which are kept back, in which order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohmformer.errors import BadInput
from ohmformer.models.images import SUFFIXES, ImagePreparation
from ohmformer.streams import Stream
from ohmformer.tasks.image_folder import TEST, TRAIN
from ohmformer.tasks.splits import in_hash_order


@dataclass(frozen=True)
class Photographs:
    """Where the photographs of one data set lie.

    Attributes:
        names: of the classes, sorted; a class is its place in this list.
        training: files that are learned from.
        held_out: files of the training folder that are never learned from. They are the ones that a study of
            `imagefolder:FOLDER` calibrates on, as long as its `task.calibration` asks for no more of them.
        labels: class of each of `training`.
        tests: how many photographs the test folder holds; they are not opened in training.
        digest: SHA-256 over paths and contents of all files, those of the test folder included.
    """

    names: list[str]
    training: list[Path]
    held_out: list[Path]
    labels: list[int]
    tests: int
    digest: str


def find(root: Path, held_out: int) -> Photographs:
    """The photographs of a folder that holds `train` and `test` (or `val`) with one folder for each class.

    Raises:
        BadInput: there is no such folder, a class has no images, the classes differ, or nothing is left to learn from.
    """
    if not root.is_dir():
        raise BadInput(f"--data {root}: there is no such folder; correct the path")
    train, test = (_part(root, names) for names in (TRAIN, TEST))
    names, files = _classes(train)
    tested, test_files = _classes(test)
    if len(names) < 2:
        raise BadInput(f"--data {root}: {train} holds only the class {names[0]!r}; give photographs of two at least")
    if unknown := sorted(set(tested) - set(names)):
        raise BadInput(f"--data {root}: {test} has a class {unknown[0]!r} that {train} lacks; add or remove it")
    if not 1 <= held_out < len(files):
        raise BadInput(
            f"--held-out {held_out}: must be from 1 to {len(files) - 1}, since {train} holds {len(files)} images"
        )
    order = in_hash_order([file.relative_to(train).as_posix() for file in files])
    kept, learned = order[:held_out], sorted(order[held_out:])
    return Photographs(
        names=names,
        training=[files[place] for place in learned],
        held_out=[files[place] for place in kept],
        labels=[names.index(files[place].relative_to(train).parts[0]) for place in learned],
        tests=len(test_files),
        digest=_digest(root, [*files, *test_files]),
    )


def pixels(files: list[Path], preparation: ImagePreparation) -> NDArray[np.uint8]:
    """[N, H, W, 3], all in memory: 29 kB each at 98 pixels.

    Raises:
        BadInput: one of them is no image that can be read.
    """
    return np.stack([preparation.pixels(file) for file in files])


def sample(found: Photographs, preparation: ImagePreparation, count: int, seed: int) -> Tensor:
    """[N, 3, H, W], the first photographs that are learned from, so many or all.

    Raises:
        BadInput: one of them is no image that can be read.
    """
    chosen = order(len(found.training), 0, seed)[:count]
    return preparation.inputs(pixels([found.training[place] for place in chosen], preparation))


def order(images: int, epoch: int, seed: int) -> list[int]:
    """In which order an epoch goes through so many images: the same whenever it is asked for."""
    drawn = Stream("order", seed, epoch).uniform(images, like=torch.empty(0))
    return drawn.argsort(stable=True).tolist()


def flipped(inputs: Tensor, step: int, seed: int) -> Tensor:
    """[B, 3, H, W] of one step, each left to right or mirrored, as seed and step decide."""
    mirrored = Stream("flip", seed, step).uniform(len(inputs), like=inputs) < 0.5
    return torch.where(mirrored[:, None, None, None], inputs.flip(-1), inputs)


def _part(root: Path, names: tuple[str, ...]) -> Path:
    found = next((root / name for name in names if (root / name).is_dir()), None)
    if found is None:
        raise BadInput(f"--data {root}: holds no folder {names[-1]!r}; it needs train/CLASS/*.jpg and test/CLASS/*.jpg")
    return found


def _classes(part: Path) -> tuple[list[str], list[Path]]:
    """Names of the classes, and all their files in one fixed order."""
    folders = sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {path: sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES) for path in folders}
    if not any(files.values()):
        raise BadInput(f"--data: {part} holds no images in folders by class; put {part.name}/CLASS/*.jpg there")
    if empty := [path for path, found in files.items() if not found]:
        raise BadInput(f"--data: the class folder {empty[0]} holds no images; remove it or fill it")
    return [path.name for path in folders], [file for found in files.values() for file in found]


def _digest(root: Path, files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        try:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
        except OSError as error:
            raise BadInput(f"{file}: cannot be read ({error.strerror}); restore it") from error
        found.update(f"{file.relative_to(root).as_posix()} {content}\n".encode())
    return found.hexdigest()
