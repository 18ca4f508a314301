"""Labelled data by name: what a model is scored on, and what its hardware may be calibrated on."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ohmformer.errors import BadInput
from ohmformer.tasks.models import tensor_bytes
from ohmformer.tasks.sources import call, resolve


@dataclass(frozen=True)
class Task:
    """A labelled test set of N samples and a separate calibration set of M.

    Attributes:
        name: what it is called in messages.
        inputs: [N, ...] what the model takes.
        labels: [N] int64, the right classes.
        calibration: [M, ...] inputs of the calibration set: never scored on.
        calibration_labels: [M] int64.
    """

    name: str
    inputs: Tensor
    labels: Tensor
    calibration: Tensor
    calibration_labels: Tensor
    metric: str = "top1"

    def __post_init__(self) -> None:
        for what, inputs, labels in (
            ("test", self.inputs, self.labels),
            ("calibration", self.calibration, self.calibration_labels),
        ):
            if len(inputs) == 0:
                raise BadInput(f"{self.name}: the {what} set is empty; give it at least one sample")
            if len(inputs) != len(labels):
                counts = f"{len(inputs)} inputs but {len(labels)} labels"
                raise BadInput(f"{self.name}: the {what} set has {counts}; give one label per input")
            if inputs.is_floating_point() and not inputs.isfinite().all():
                raise BadInput(f"{self.name}: the {what} set holds NaN or infinity; remove or mend those samples")

    def __len__(self) -> int:
        """Samples in the test set."""
        return len(self.inputs)

    def first(self, limit: int | None) -> Task:
        """The task with only the first `limit` test samples.

        Raises:
            BadInput: limit is below 1, or above what there is.
        """
        if limit is None:
            return self
        if limit < 1:
            raise BadInput(f"task.limit = {limit}: must be 1 or more; leave it out to take all {len(self)} samples")
        if limit > len(self):
            raise BadInput(f"task.limit = {limit}: {self.name} has only {len(self)} samples; lower it or leave it out")
        return replace(self, inputs=self.inputs[:limit], labels=self.labels[:limit])

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the metric and all samples (type, shape, bytes)."""
        digest = hashlib.sha256(self.metric.encode())
        for tensor in (self.inputs, self.labels, self.calibration, self.calibration_labels):
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()


def load_task(source: str, limit: int | None = None) -> Task:
    """The task of a source, with its first `limit` test samples.

    Args:
        source: 'bundled:fashion-mnist', or 'python:module:function' for a function that returns a `Task`.
        limit: how many test samples; None takes all.

    Raises:
        BadInput: no such source, no samples, or a limit that does not fit.
    """
    found = resolve("task", source)
    task = _read(found, source) if isinstance(found, Path) else call("task", source, found, Task)
    return task.first(limit)


def _read(file: Path, source: str) -> Task:
    """A pair of files, NAME_test.npz and NAME_calibration.npz, with uint8 `images` [N, H, W] and `labels` [N]."""
    calibration_file = file.with_name(file.name.replace("_test.npz", "_calibration.npz"))
    return Task(source, *_arrays(file), *_arrays(calibration_file))


def _arrays(file: Path) -> tuple[Tensor, Tensor]:
    try:
        with np.load(file) as content:
            images, labels = content["images"], content["labels"]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise BadInput(f"{file}: is no bundled data set ({error}); install the package again") from error
    return normalise(images), torch.from_numpy(labels.astype(np.int64))


def normalise(images: np.ndarray) -> Tensor:
    """Grey images uint8 [N, H, W] to float32 [N, 1, H, W] in [-1, 1]."""
    return torch.from_numpy(images.astype(np.float32)).unsqueeze(1) / 127.5 - 1.0
