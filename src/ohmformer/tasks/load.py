"""Labelled data by name: what a model is scored on, and what its hardware may be calibrated on."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ohmformer.capture.inputs import leaves, size, take
from ohmformer.errors import BadInput, suggest
from ohmformer.models.load import tensor_bytes
from ohmformer.models.preprocessing import preparation
from ohmformer.models.sources import call, resolve, split
from ohmformer.schema import validate
from ohmformer.stats.intervals import Floats, Summary
from ohmformer.tasks.spec import METRICS, Metric, TaskChoice

READERS = {
    "imagefolder": ("ohmformer.tasks.image_folder", "folder_task"),
    "csv": ("ohmformer.tasks.csv_table", "table_task"),
    "text": ("ohmformer.tasks.running_text", "text_task"),
}
"""Prefix of a source -> module and function that read it; imported on use, since images need an optional package."""

OPTIONS = {
    "imagefolder": ("labels", "calibration", "probe", "train", "pooling"),
    "csv": ("labels", "calibration", "probe", "train", "pooling", "window"),
    "text": ("calibration", "window", "stride", "prefill", "step"),
}
"""Prefix of a source -> fields of a choice that it uses, beside source, limit and metric."""


IGNORED = -100
"""Label of a token that is not scored."""

Inputs = Any
"""What a model takes of N samples: see `ohmformer.capture.inputs`."""


@dataclass(frozen=True)
class Reading:
    """How a model is asked, and what of its answer counts.

    Attributes:
        pooling: how token features become those of a sample: their mean, the first token's, or `auto`.
        prefill: tokens that enter a KV cache at once; None asks without a cache.
        step: tokens that enter the cache together after that.
    """

    pooling: str = "auto"
    prefill: int | None = None
    step: int = 1


@dataclass(frozen=True)
class Task:
    """A labelled test set of N samples and a separate calibration set of M.

    Inputs are a tensor with the sample as leading axis, or a mapping of such tensors by the names of the model's
    arguments (nested as deep as you like).

    Attributes:
        name: what it is called in messages.
        inputs: [N, ...] what the model takes.
        labels: [N] int64, the right classes; [N, T] the right tokens, `IGNORED` where none is scored; [P] how similar
            the texts of each pair are.
        calibration: [M, ...] inputs of the calibration set: never scored on.
        calibration_labels: [M, ...] int64; anything where labels are not of samples.
        metric: a key of `ohmformer.tasks.spec.METRICS`.
        pairs: [P, 2] which two samples each pair is; None for what is no pairs.
        train: inputs and classes that a probe is fitted on; none of them is in another set.
        reference: [N, D] features of the software model, for `fidelity`; see `ohmformer.tasks.metrics.against`.
        reading: how the model is asked.
        notes: what a reader of results must know.
    """

    name: str
    inputs: Inputs
    labels: Tensor
    calibration: Inputs
    calibration_labels: Tensor
    metric: str = "top1"
    pairs: Tensor | None = None
    train: tuple[Inputs, Tensor] | None = None
    reference: Tensor | None = None
    reading: Reading = Reading()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise BadInput(f"{self.name}: metric = {self.metric!r}; {suggest(self.metric, list(METRICS))}")
        scored = self.pairs if self.pairs is not None else self.inputs
        for what, inputs, rows, labels in (
            ("test", self.inputs, scored, self.labels),
            ("calibration", self.calibration, self.calibration, self.calibration_labels),
        ):
            if size(inputs) == 0:
                raise BadInput(f"{self.name}: the {what} set is empty; give it at least one sample")
            if size(rows) != len(labels):
                counts = f"{size(rows)} inputs but {len(labels)} labels"
                raise BadInput(f"{self.name}: the {what} set has {counts}; give one label per input")
            for path, leaf in leaves(inputs):
                if isinstance(leaf, Tensor) and leaf.is_floating_point() and not leaf.isfinite().all():
                    where = f"{what} set's {path}" if path else f"{what} set"
                    raise BadInput(f"{self.name}: the {where} holds NaN or infinity; remove or mend those samples")

    def __len__(self) -> int:
        """Samples in the test set; pairs, where pairs are scored."""
        return len(self.labels)

    @property
    def scored(self) -> Metric:
        """Its metric."""
        return METRICS[self.metric]

    def first(self, limit: int | None) -> Task:
        """The task with only the first `limit` test samples, or pairs with the samples that they need.

        Raises:
            BadInput: limit is below 1, or above what there is.
        """
        if limit is None:
            return self
        if limit < 1:
            raise BadInput(f"task.limit = {limit}: must be 1 or more; leave it out to take all {len(self)} samples")
        if limit > len(self):
            raise BadInput(f"task.limit = {limit}: {self.name} has only {len(self)} samples; lower it or leave it out")
        if limit == len(self):
            return self
        pairs = None if self.pairs is None else self.pairs[:limit]
        rows = slice(0, limit if pairs is None else int(pairs.max()) + 1)
        reference = None if self.reference is None else self.reference[rows]
        return replace(
            self, inputs=take(self.inputs, rows), labels=self.labels[:limit], pairs=pairs, reference=reference
        )

    def summarise(self, scores: Floats) -> Summary:
        """What the scores [C, N] of C chips come to: mean, 95 % interval, every chip's own value.

        Raises:
            BadInput: too few scores for the metric, or none that can be told apart.
        """
        return self.scored.summarize(scores, self)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the metric and all samples (type, shape, bytes), and over how the model is asked."""
        digest = hashlib.sha256(self.metric.encode())
        if self.reading != Reading():
            digest.update(repr(self.reading).encode())
        rest = [part for part in (self.pairs, self.train) if part is not None]
        parts = (self.inputs, self.labels, self.calibration, self.calibration_labels, *rest)
        for path, leaf in (found for part in parts for found in leaves(part)):
            digest.update(path.encode())
            if isinstance(leaf, Tensor):
                digest.update(f"{leaf.dtype} {tuple(leaf.shape)}\n".encode())
                digest.update(tensor_bytes(leaf))
            else:
                digest.update(str(getattr(leaf, "digest", leaf)).encode())
        return digest.hexdigest()


def load_task(source: str, limit: int | None = None, *, model: nn.Module | None = None, **options: Any) -> Task:
    """The task of a source, with its first `limit` test samples.

    Args:
        source: 'bundled:fashion-mnist', 'imagefolder:FOLDER', 'csv:FILE', 'text:FILE', or 'python:module:function' for
            a function that returns a `Task`.
        limit: how many test samples; None takes all.
        model: what `load_model` gave: it decides how images and texts become its inputs. Bundled tasks need none.
        options: the other fields of `ohmformer.tasks.spec.TaskChoice`, such as metric, window or labels.

    Raises:
        BadInput: no such source, no samples, a limit that does not fit, or an option that does not go with the source.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"task.limit = {limit}: must be 1 or more; leave it out to take all samples")
    table = {"source": source, **({"limit": limit} if limit is not None else {}), **options}
    return make_task(validate(TaskChoice, table, where="", top="task", in_file=False), model)


def make_task(choice: TaskChoice, model: nn.Module | None = None) -> Task:
    """The task of a choice, prepared for a model.

    Raises:
        BadInput: as `load_task`.
    """
    prefix, _ = split("task", choice.source)
    _check_options(choice, prefix)
    if prefix in ("imagefolder", "csv", "text"):
        module, function = READERS[prefix]
        found: Task = getattr(import_module(module), function)(choice, model)
    else:
        resolved = resolve("task", choice.source)
        found = (
            _read(resolved, choice.source)
            if isinstance(resolved, Path)
            else call("task", choice.source, resolved, Task)
        )
        found = replace(found, metric=choice.metric) if choice.metric else found
        found = found.first(choice.limit)
    notes = (*preparation(model).notes, *found.notes)
    found = replace(found, notes=tuple(dict.fromkeys(notes)))
    if found.metric == "fidelity" and model is not None:
        metrics = import_module("ohmformer.tasks.metrics")
        found = metrics.against(found, model)
    return found


def _check_options(choice: TaskChoice, prefix: str) -> None:
    """Refuse what a source has no use for."""
    for name, field in TaskChoice.model_fields.items():
        given = getattr(choice, name) != field.default
        if name not in ("source", "limit", "metric", "provenance", *OPTIONS.get(prefix, ())) and given:
            raise BadInput(f"task.{name} = {getattr(choice, name)!r}: does not go with {prefix}: sources; leave it out")
    if choice.probe and choice.metric == "fidelity":
        raise BadInput("task.probe = true: fidelity compares features, which a probe hides; leave one of them out")
    if choice.train is not None and not choice.probe:
        raise BadInput(f"task.train = {choice.train}: only a probe is trained; set task.probe = true, or leave it out")
    if choice.step != 1 and choice.prefill is None:
        raise BadInput(f"task.step = {choice.step}: only a KV cache has steps; set task.prefill, or leave it out")


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
